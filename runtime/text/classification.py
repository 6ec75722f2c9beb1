"""Text classification, and the tasks that return the model's outputs or embeddings unchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from runtime.format.manifest import Activation
from runtime.text.batched import OneWindowTask, Outputs, positive
from runtime.text.encoder import TextEncoder
from runtime.text.results import Classification

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

    def window_result(self, item: str | tuple[str, str], encoding: Encoding, outputs: Outputs) -> Classification:
        """The best label, and the scores of all that are kept."""
        scores = zip(self._score(outputs["logits"]).tolist(), self._labels, strict=True)
        ranked = sorted(scores, key=lambda pair: pair[0], reverse=True)
        return Classification(ranked[0][1], ranked[0][0], {label: score for score, label in ranked[: self._top_k]})


class OutputsTask(OneWindowTask):
    """Return all outputs unchanged."""

    def window_result(self, item: str | tuple[str, str], encoding: Encoding, outputs: Outputs) -> Outputs:
        """The outputs."""
        return outputs


class EmbeddingTask(OneWindowTask):
    """Return one output, the embedding.

    Args:
        encoder: the artifact's encoder.
        name: the output's name.
        truncate: cut texts that are too long.
    """

    def __init__(self, encoder: TextEncoder, name: str, truncate: bool) -> None:
        super().__init__(encoder, truncate)
        self._name = name

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> torch.Tensor:
        """The embedding of the text, or of each token."""
        return outputs[self._name]
