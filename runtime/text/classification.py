"""Text classification, reranking, and the task that returns the model's outputs unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from runtime.format.manifest import Activation
from runtime.text.batched import OneWindowTask, Outputs, positive
from runtime.text.encoder import TextEncoder
from runtime.text.results import Classification, classified
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

SCORES: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
    "tanh": lambda logits: logits.tanh(),
    "none": lambda logits: logits,
}


class ClassificationTask(OneWindowTask):
    """Choose labels by their scores.

    Args:
        encoder: the artifact's encoder.
        labels: the model's labels, in order.
        activation: turns logits into scores.
        top_k: the number of labels to keep, best first; None: all.
        truncate: cut texts that are too long.
    """

    def __init__(
        self, encoder: TextEncoder, labels: Sequence[str], activation: Activation, top_k: int | None, truncate: bool
    ) -> None:
        super().__init__(encoder, truncate, pairs=True)
        self._labels = labels
        self._score = SCORES[activation]
        self._top_k = None if top_k is None else positive("top_k", top_k)

    def _window(self, item: Any, found: Encoding | InvalidText) -> list[Encoding] | InvalidText:
        if self.encoder.joins_pairs and isinstance(item, str):
            return InvalidText("is one text", "a pair of a query and a document")
        return super()._window(item, found)

    def window_result(self, item: str | tuple[str, str], encoding: Encoding, outputs: Outputs) -> Classification:
        """The best label, and the scores of all that are kept."""
        return classified(self._score(outputs["logits"]).tolist(), self._labels, self._top_k)


class RerankingTask(OneWindowTask):
    """Score pairs of a query and a document.

    Args:
        encoder: the artifact's encoder.
        activation: turns logits into scores.
        truncate: cut pairs that are too long.
    """

    def __init__(self, encoder: TextEncoder, activation: Activation, truncate: bool) -> None:
        super().__init__(encoder, truncate, pairs=True)
        self._score = SCORES[activation]

    def window_result(self, item: tuple[str, str], encoding: Encoding, outputs: Outputs) -> float:
        """The score of the only label."""
        return float(self._score(outputs["logits"])[0])


class OutputsTask(OneWindowTask):
    """Return all outputs unchanged."""

    def window_result(self, item: str | tuple[str, str], encoding: Encoding, outputs: Outputs) -> Outputs:
        """The outputs."""
        return outputs
