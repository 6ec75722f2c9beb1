"""Question answering: JSON in SQuAD's form; the answer is a span of the context. Metrics: exact match and F1.

A context longer than the model admits is read in overlapping windows; the best span of all windows counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy

from exporter.evaluation import metrics
from exporter.evaluation.base import Evaluation, Features, Metrics
from exporter.evaluation.files import read_squad

# As in SQuAD's reference: how many candidates per end, and the longest answer in tokens.
_BEST = 20
_LONGEST_ANSWER = 30


class QuestionAnswering(Evaluation):
    """One span per question."""

    task: ClassVar[str] = "question-answering"
    label_names: ClassVar[tuple[str, ...]] = ("start_positions", "end_positions")
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    main: ClassVar[str] = "f1"

    def read(self, path: str | Path) -> list[dict[str, Any]]:
        """Rows with `id`, `question`, `context`, `predictions`."""
        return read_squad(path)

    def features(self, rows: Sequence[Mapping[str, Any]]) -> Features:
        """One per window; if the window does not contain the answer, both positions are 0."""
        encoded = self.tokenizer(
            [row["question"] for row in rows],
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.max_length // 3,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        made = []
        for window, owner in enumerate(encoded["overflow_to_sample_mapping"]):
            # The place of each token in the context; None for all other tokens.
            offsets = [
                place if part == 1 else None
                for place, part in zip(encoded["offset_mapping"][window], encoded.sequence_ids(window), strict=True)
            ]
            start, end = _positions(offsets, rows[owner]["answers"])
            feature = {name: encoded[name][window] for name in self.tokenizer.model_input_names if name in encoded}
            made.append(feature | {"start_positions": start, "end_positions": end, "_row": owner, "_offsets": offsets})
        return made

    def predictions(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> list[Any]:
        """The span with the largest sum of scores, as text."""
        best: dict[int, tuple[float, str]] = {}
        for feature, starts, ends in zip(features, *scores, strict=True):
            row = feature["_row"]
            found = _best_span(feature["_offsets"], starts, ends)
            if found is not None and found[0] > best.get(row, (-numpy.inf, ""))[0]:
                best[row] = found[0], rows[row]["context"][found[1] : found[2]]
        return [best.get(row, (0.0, ""))[1] for row in range(len(rows))]

    def score(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> Metrics:
        """Exact match and F1."""
        found = self.predictions(rows, features, scores)
        return metrics.spans({row["id"]: text for row, text in zip(rows, found, strict=True)}, rows)


def _positions(offsets: Sequence[Any], answers: Sequence[tuple[str, int]]) -> tuple[int, int]:
    if not answers:
        return 0, 0
    text, begin = answers[0]
    end = begin + len(text)
    first = [index for index, place in enumerate(offsets) if place is not None and place[0] <= begin < place[1]]
    last = [index for index, place in enumerate(offsets) if place is not None and place[0] < end <= place[1]]
    return (first[0], last[-1]) if first and last else (0, 0)


def _best_span(offsets: Sequence[Any], starts: numpy.ndarray, ends: numpy.ndarray) -> tuple[float, int, int] | None:
    """Score, begin and end in characters."""
    # Padding of the batch follows the real tokens.
    starts, ends = starts[: len(offsets)], ends[: len(offsets)]
    best = None
    for start in numpy.argsort(starts)[::-1][:_BEST]:
        for end in numpy.argsort(ends)[::-1][:_BEST]:
            if offsets[start] is None or offsets[end] is None or not start <= end < start + _LONGEST_ANSWER:
                continue
            score = float(starts[start] + ends[end])
            if best is None or score > best[0]:
                best = score, offsets[start][0], offsets[end][1]
    return best
