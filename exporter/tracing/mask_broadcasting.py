"""Make attention masks by broadcasting while a model is traced, instead of through `torch.vmap`.

A mask function takes four indices (row of the batch, head, query, key) and says whether the query sees the key. If a
model adds a function of its own (Gemma 3's bidirectional encoder does), transformers maps it over the four axes by
`vmap`, which the tracer of TorchScript cannot follow ("unordered_map::at"). For functions that compute elementwise or
look up numbers by their indices, one call with indices of shapes [batch, 1, 1, 1] to [1, 1, 1, keys] gives the same
mask. Verification compares the outputs with those of the original, which still uses `vmap`.

The mask of an encoder with written-out attention hides padding alone. transformers repeats it for each query, [batch,
1, queries, keys]; while tracing it has one line for all queries, [batch, 1, 1, keys], which is less work in every call,
and shows that the queries of a row see the same keys.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def masks_by_broadcasting() -> Iterator[None]:
    """A context for a trace; nothing changes if transformers is not loaded, or its release does not use `vmap`."""
    module = sys.modules.get("transformers.masking_utils")
    originals = {name: getattr(module, name) for name in (*_REPLACED, _MAKER) if hasattr(module, name)}
    for name, original in originals.items():
        setattr(module, name, _one_line(original, module) if name == _MAKER else _REPLACED[name])
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


def _broadcasting(mask_function: Callable[..., Any], bh_indices: bool = True) -> Callable[..., torch.Tensor]:
    """The replacement for transformers' function: the same arguments, the same result.

    Args:
        mask_function: takes the four indices.
        bh_indices: whether the mask has axes for batch and heads, or only for queries and keys.
    """

    def mask(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        if not bh_indices:
            found = torch.as_tensor(mask_function(batch, head, query[:, None], key[None, :]))
            return found.expand(query.shape[0], key.shape[0])
        indices = batch[:, None, None, None], head[None, :, None, None], query[None, None, :, None], key
        found = torch.as_tensor(mask_function(*indices))
        return found.expand(batch.shape[0], head.shape[0], query.shape[0], key.shape[0])

    return mask


def _one_line(original: Callable[..., Any], module: Any) -> Callable[..., Any]:
    """The replacement for the maker of masks: without repetition where the queries make no difference."""
    everything = getattr(module, "bidirectional_mask_function", None)

    def mask(*arguments: Any, **options: Any) -> Any:
        padding, function = options.get("attention_mask"), options.get("mask_function")
        known = not arguments and everything is not None and function is everything
        known = known and not _checks_sizes(options.get("config"))
        if not known or padding is None or options.get("use_vmap"):
            return original(*arguments, **options)
        length, offset = options["kv_length"], options.get("kv_offset", 0)
        padding = module.prepare_padding_mask(padding, length, offset)
        return padding[:, None, None, offset : offset + length].to(torch.bool)

    return mask


def _checks_sizes(config: Any) -> bool:
    """Whether the model's code refuses a mask that is not repeated for each query (MVP, Table Transformer)."""
    name = type(config).__module__.replace(".configuration_", ".modeling_")
    module = sys.modules.get(name)
    return config is None or module is None or "Attention mask should be of size" in inspect.getsource(module)


# Called by `eager_mask`, with names for all arguments.
_MAKER = "sdpa_mask"
# Names in transformers' module: the mapping up to release 4.57, and since; and a mode that lets `vmap` look up numbers
# by tensors, through a Python function that a trace cannot hold. Broadcasting does not need it.
_REPLACED: dict[str, Any] = {
    "_vmap_for_bhqkv": _broadcasting,
    "_vmap_expansion_sdpa": _broadcasting,
    "TransformGetItemToIndex": nullcontext,
}
