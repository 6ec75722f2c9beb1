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
    """How scores become labels.

    Args:
        encoder: the artifact's.
        labels: the model's, in order.
        activation: how logits become scores.
        top_k: labels to keep, the best first; None: all.
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
        """The best label and the others."""
        scores = zip(self._score(outputs["logits"]).tolist(), self._labels, strict=True)
        ranked = sorted(scores, key=lambda pair: pair[0], reverse=True)
        return Classification(ranked[0][1], ranked[0][0], {label: score for score, label in ranked[: self._top_k]})


class OutputsTask(OneWindowTask):
    """All outputs as they are."""

    def window_result(self, item: str | tuple[str, str], encoding: Encoding, outputs: Outputs) -> Outputs:
        """They."""
        return outputs


class EmbeddingTask(OneWindowTask):
    """One output as it is.

    Args:
        encoder: the artifact's.
        name: the output's.
        truncate: cut texts that are too long.
    """

    def __init__(self, encoder: TextEncoder, name: str, truncate: bool) -> None:
        super().__init__(encoder, truncate)
        self._name = name

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> torch.Tensor:
        """The vector, or a vector a token."""
        return outputs[self._name]
