"""Attention masks that transformers makes through `torch.vmap` are made by broadcasting while a model is traced.

A mask function takes four indices (row of the batch, head, query, key) and says whether the query sees the key. Where a
model adds a function of its own (Gemma 3's bidirectional encoder does), transformers maps it over the four axes by
`vmap`, which the tracer of TorchScript cannot follow ("unordered_map::at"). Indices of shapes [batch, 1, 1, 1] to
[1, 1, 1, keys] give the same mask in one call of a function that computes elementwise or looks numbers up by its
indices; the verification compares the outputs with those of the original, which still maps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def masks_by_broadcasting() -> Iterator[None]:
    """For the time of a trace; nothing happens where transformers is not loaded, or maps no masks."""
    module = sys.modules.get("transformers.masking_utils")
    originals = {name: getattr(module, name) for name in _REPLACED if hasattr(module, name)}
    for name in originals:
        setattr(module, name, _REPLACED[name])
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


def _broadcasting(mask_function: Callable[..., Any], bh_indices: bool = True) -> Callable[..., torch.Tensor]:
    """What stands in the place of transformers' function: the same arguments, the same result.

    Args:
        mask_function: takes the four indices.
        bh_indices: whether the mask has axes for batch and heads; only queries and keys otherwise.
    """

    def mask(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if not bh_indices:
            found = torch.as_tensor(mask_function(batch, head, query[:, None], key[None, :]))
            return found.expand(query.shape[0], key.shape[0])
        indices = batch[:, None, None, None], head[None, :, None, None], query[None, None, :, None], key
        found = torch.as_tensor(mask_function(*indices))
        return found.expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

    return mask


# By their names in transformers' module: the mapping up to release 4.57, and since; and a mode that lets `vmap` look
# numbers up by tensors, through a function of Python that no trace can hold. Broadcasting needs no such help.
_REPLACED: dict[str, Any] = {
    "_vmap_for_bhqkv": _broadcasting,
    "_vmap_expansion_sdpa": _broadcasting,
    "TransformGetItemToIndex": nullcontext,
}
