"""Sparse embeddings: the weight of each token of the vocabulary that a text is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.text.batched import OneWindowTask, Outputs, positive
from runtime.text.encoder import TextEncoder

if TYPE_CHECKING:
    from tokenizers import Encoding


class SparseTask(OneWindowTask):
    """Name the entries of the vocabulary whose weight is not 0.

    Args:
        encoder: the artifact's encoder.
        name: the output's name.
        top_k: the number of tokens to keep, the largest weights first; None: all.
        truncate: cut texts that are too long.
    """

    def __init__(self, encoder: TextEncoder, name: str, top_k: int | None, truncate: bool) -> None:
        super().__init__(encoder, truncate)
        self._name = name
        self._top_k = None if top_k is None else positive("top_k", top_k)

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> dict[str, float]:
        """Weight by token, the largest first."""
        weights = outputs[self._name]
        ids = weights.nonzero().flatten()
        ordered = weights[ids].sort(descending=True, stable=True)
        kept = zip(ids[ordered.indices].tolist(), ordered.values.tolist(), strict=True)
        return {self.encoder.token(number): weight for number, weight in list(kept)[: self._top_k]}
