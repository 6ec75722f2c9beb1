"""Extractive question answering: find the answer as a span of the context, as transformers 4's pipeline does.

The context is divided into overlapping windows. Within a window the start and end probabilities are taken over the
tokens of the context and the CLS token, which stands for "no answer". The most probable spans are extended to whole
words, and the scores of spans with the same text are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runtime.errors import InputTextError
from runtime.text.batched import Outputs, positive
from runtime.text.encoder import TextEncoder
from runtime.text.results import Answer
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

# Spans per window, before they are extended to whole words: the pipeline's number for one answer.
_CANDIDATES = 12
# The pipeline's defaults, in tokens.
WINDOW = 384
STRIDE = 128
LONGEST = 15


@dataclass(frozen=True)
class Window:
    """The result of one window: spans in characters with their scores, and the score of "no answer"."""

    spans: list[tuple[int, int, float]]
    no_answer: float


class QuestionAnsweringTask:
    """Find the answer in the windows of a context.

    Args:
        encoder: the artifact's encoder.
        class_id: the id of the CLS token; None if there is none.
        window: the maximum of tokens of question and context together.
        stride: the tokens of the context that neighbouring windows share; None: 128, or half of a shorter window.
        longest: the maximum of tokens of an answer.
        impossible: allow "no answer".

    Raises:
        InputTextError: a window or stride that leaves no space for the context.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        class_id: int | None,
        window: int,
        stride: int | None,
        longest: int,
        impossible: bool,
    ) -> None:
        least = encoder.added[1] + 2
        if not isinstance(window, int) or window < least:
            raise InputTextError(f"window is {window!r}", f"at least {least} tokens")
        self._window = min(window, encoder.limit)
        self._stride = min(STRIDE, self._window // 2) if stride is None else stride
        if not isinstance(self._stride, int) or not 0 <= self._stride <= self._window - least:
            raise InputTextError(f"stride is {stride!r}", f"0 to {self._window - least} tokens")
        self._encoder = encoder
        self._class_id = class_id
        self._longest = positive("longest", longest)
        self._impossible = impossible
        # The context is the second part of a pair, or the first if texts are padded on the left.
        self._context_part = 1 if encoder.info.padding_side == "right" else 0

    def windows(self, items: Sequence[Any]) -> list[list[Encoding] | InvalidText]:
        """The windows of each pair of question and context, or why it cannot be used."""
        return [self._windows(item) for item in items]

    def _windows(self, item: Any) -> list[Encoding] | InvalidText:
        if not isinstance(item, tuple) or len(item) != 2:
            return InvalidText(f"is {item!r}"[:100], "a tuple of question and context")
        divided = ("only_first", "only_second")[self._context_part]
        ordered = item if self._context_part else item[::-1]
        found = self._encoder.windows(ordered, length=self._window, stride=self._stride, parts=(divided, "question"))
        if isinstance(found, InvalidText):
            return found
        seen = set(found[0].sequence_ids)
        for part, name, text in (
            (1 - self._context_part, "question", item[0]),
            (self._context_part, "context", item[1]),
        ):
            if not text.strip() or part not in seen:
                return InvalidText(f"has an empty {name}", "text")
        return found

    def window_result(self, item: tuple[str, str], encoding: Encoding, outputs: Outputs) -> Window:
        """The most probable spans of one window."""
        context = torch.tensor([one == self._context_part for one in encoding.sequence_ids])
        competing = context
        if self._class_id is not None:
            competing = context | (torch.tensor(encoding.ids) == self._class_id)
        logits = outputs["start_logits"], outputs["end_logits"]
        starts, ends = (torch.where(competing, one, -10000.0).softmax(-1) for one in logits)
        no_answer = float(starts[0] * ends[0])
        starts, ends = (torch.where(context, one, 0.0) for one in (starts, ends))
        scores = torch.outer(starts, ends).triu().tril(self._longest - 1)
        # Spans that are not allowed rank below all others, including those with score 0.
        allowed = torch.outer(context, context).triu().tril(self._longest - 1)
        ranked = torch.where(allowed, scores, -1.0).flatten()
        best = ranked.topk(min(_CANDIDATES, int(allowed.sum())))
        width = len(context)
        spans = [
            (*_characters(encoding, place // width, place % width, self._context_part), score)
            for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return Window(spans, no_answer)

    def combine(self, item: tuple[str, str], results: Sequence[Window]) -> Answer:
        """The best answer over all windows."""
        found: dict[str, Answer] = {}
        for window in results:
            for start, end, score in window.spans:
                text = item[1][start:end]
                known = found.get(text.lower())
                if known is None:
                    found[text.lower()] = Answer(text, score, start, end)
                else:
                    found[text.lower()] = Answer(known.text, known.score + score, known.start, known.end)
        answers = list(found.values())
        if self._impossible:
            answers.append(Answer("", min(window.no_answer for window in results), 0, 0))
        return max(answers, key=lambda answer: answer.score)


def _characters(encoding: Encoding, first: int, last: int, part: int) -> tuple[int, int]:
    """The characters from the beginning of the first token's word to the end of the last token's word."""
    words = encoding.token_to_word(first), encoding.token_to_word(last)
    # Some tokenizers do not record words.
    spans = [encoding.word_to_chars(word, part) for word in words if word is not None]
    if len(spans) == 2 and spans[0] is not None and spans[1] is not None:
        return spans[0][0], spans[1][1]
    return encoding.offsets[first][0], encoding.offsets[last][1]
