"""Sparse embeddings: the weight of each token of the vocabulary that a text is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.format.manifest import TokenOutputs
from runtime.text.batched import OneWindowTask, Outputs, positive
from runtime.text.encoder import TextEncoder

if TYPE_CHECKING:
    from tokenizers import Encoding


class TokenWeightsTask(OneWindowTask):
    """Name the tokens of a text with the largest weight that each has in it (BGE-M3).

    Args:
        encoder: the artifact's encoder.
        outputs: the names of the outputs, and the tokens that have no weight.
        top_k: the number of tokens to keep, the largest weights first; None: all.
        truncate: cut texts that are too long.
    """

    def __init__(self, encoder: TextEncoder, outputs: TokenOutputs, top_k: int | None, truncate: bool) -> None:
        super().__init__(encoder, truncate)
        self._name = outputs.weights
        self._skipped = frozenset(outputs.skipped_ids)
        self._top_k = None if top_k is None else positive("top_k", top_k)

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> dict[str, float]:
        """Weight by token, the largest first."""
        found: dict[int, float] = {}
        for number, weight in zip(encoding.ids, outputs[self._name].tolist(), strict=True):
            if number not in self._skipped and weight > found.get(number, 0.0):
                found[number] = weight
        kept = sorted(found.items(), key=lambda one: one[1], reverse=True)[: self._top_k]
        return {self.encoder.token(number): weight for number, weight in kept}


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
