"""Text classification: CSV or JSON lines with `text` (and `text_pair`) and `label`. Metrics: accuracy and F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy

from exporter.evaluation import metrics
from exporter.evaluation.base import Evaluation, Features, Metrics
from exporter.evaluation.files import read_table


class TextClassification(Evaluation):
    """One class per text."""

    task: ClassVar[str] = "text-classification"
    main: ClassVar[str] = "accuracy"

    def read(self, path: str | Path) -> list[dict[str, Any]]:
        """Rows with `text` and `label`."""
        return read_table(path, ("text", "label"))

    def features(self, rows: Sequence[Mapping[str, Any]]) -> Features:
        """One per row; longer texts are truncated."""
        pairs = [row["text_pair"] for row in rows] if rows and rows[0].get("text_pair") is not None else None
        encoded = self.tokenizer([row["text"] for row in rows], pairs, truncation=True, max_length=self.max_length)
        return [
            {name: encoded[name][index] for name in encoded}
            | {"labels": self.number(str(row["label"]), str(row.get("place", index)))}
            for index, row in enumerate(rows)
        ]

    def predictions(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> list[Any]:
        """The class with the largest score."""
        return [self.labels[int(numpy.argmax(row))] for row in scores[0]]

    def score(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> Metrics:
        """Accuracy and F1."""
        found = [int(numpy.argmax(row)) for row in scores[0]]
        return metrics.classes(found, [feature["labels"] for feature in features])
