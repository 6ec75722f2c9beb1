"""The cache that a decoder of transformers is given in place of its own: keys and values in tensors from outside.

A model writes the keys and values of its new tokens through `update` and reads those of all tokens so far. Here they
are written in place, at positions that each row has for itself, so that one traced graph serves prompts and single
tokens, and rows of different lengths. Nothing of this is per architecture: it holds for every model that keeps its
keys and values in a `Cache` and makes its masks by transformers' own functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers.cache_utils import Cache

from runtime.errors import TaskError

# Keys and values of one layer, [rows, heads, length, width].
Pair = tuple[torch.Tensor, torch.Tensor]


class _Stateless(Cache):  # type: ignore[misc]  # transformers has no types
    """What models ask of a cache besides `update`, without the layers of transformers' own ones."""

    def __init__(self) -> None:
        # Not that of the base class, whose arguments differ from release to release.
        self.layers: list[Any] = []
        self.offloading = False

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        """Of the first query; masks here go by each row's positions."""
        return self.get_seq_length(layer_idx)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """No limit that the model has to know."""
        return -1

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """The same, by its newer name."""
        return -1

    @property
    def is_compileable(self) -> bool:
        """Not by torch.compile."""
        return False

    @property
    def is_sliding(self) -> list[bool]:
        """No layer forgets: a sliding window is in the mask."""
        return [False]

    @property
    def is_linear(self) -> list[bool]:
        """No layer keeps a state."""
        return [False]

    @property
    def is_dummy(self) -> list[bool]:
        """No layer is left out."""
        return [False]


class RecordingCache(_Stateless):
    """An empty cache that forgets what it is given, and remembers the sizes: heads and widths by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Pair:
        """The new keys and values, which are all there are."""
        self.sizes[layer_idx] = tuple(key_states.shape), tuple(value_states.shape)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing was there before."""
        return 0

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[Any, int]:
        """The number of keys that a query may see, and the position of the first."""
        return _length(query_length), 0


class InPlaceCache(_Stateless):
    """Keys and values in tensors from outside, which are written to.

    Args:
        positions: [rows, tokens], where each token of the call stands in its row.
        pairs: the tensors by layer; each has room for the largest position.
    """

    def __init__(self, positions: torch.Tensor, pairs: Mapping[int, Pair]) -> None:
        super().__init__()
        self._positions, self._pairs = positions, pairs
        # Tensors, so that a trace takes them from each call's positions.
        self._end = positions.max() + 1

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Pair:
        """Write the call's keys and values; return all up to the largest position, which the mask divides by rows."""
        whole = []
        for kept, new in zip(self._pairs[layer_idx], (key_states, value_states), strict=True):
            # Those of a model in fp32 may be kept in bf16.
            stored = new if new.dtype == kept.dtype else new.to(kept.dtype)
            # The result is used: if IPEX's library is loaded, TorchScript may drop an operator whose result is not.
            written = kept.scatter_(2, self._positions[:, None, :, None].expand_as(new), stored)[:, :, : self._end]
            whole.append(written if new.dtype == kept.dtype else written.to(new.dtype))
        return whole[0], whole[1]

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """The number of tokens before those of the call, in the longest row."""
        return self._end - self._positions.shape[1]

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[Any, int]:
        """The number of keys that `update` returns, and the position of the first."""
        return self._end, 0


def _length(query_length: Any) -> Any:
    # Releases before 5 pass the positions of the queries in place of their number.
    return query_length.shape[0] if isinstance(query_length, torch.Tensor) and query_length.dim() else query_length


def _registry(module: str, name: str) -> Any:
    """One of transformers' tables of functions.

    Raises:
        TaskError: the installed release has none; it came with 4.53.
    """
    try:
        return getattr(importlib.import_module(f"transformers.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise TaskError(
            f"transformers {transformers.__version__} has no table of masks",
            "4.53 or newer, for text-generation",
            "install it, or choose --task text-generation-scoring",
        ) from error


# What `masks_by_position` calls with each mask, and with the function that says which keys a query sees.
Watch = Callable[[torch.Tensor, Callable[..., torch.Tensor]], None]


@contextmanager
def masks_by_position(positions: torch.Tensor, watch: Watch | None = None) -> Iterator[None]:
    """While a model runs, its masks compare keys with the position that each query has in its own row.

    A model says by a function which keys a query sees (all before it, a window, a chunk), and transformers calls it
    with queries counted from one offset for all rows. Here it is called with `positions`, [rows, tokens].
    """
    makers = dict.fromkeys(("eager", "sdpa"), _mask_maker(positions, watch))
    with _replaced(_registry("masking_utils", "ALL_MASK_ATTENTION_FUNCTIONS"), makers):
        yield


def _mask_maker(positions: torch.Tensor, watch: Watch | None) -> Any:
    def mask(**kwargs: Any) -> torch.Tensor:
        keys = torch.arange(kwargs["kv_length"])[None, None, None, :]
        rows = torch.arange(positions.shape[0])[:, None, None, None]
        heads = torch.zeros([1, 1, 1, 1], dtype=torch.int64)
        seen = kwargs["mask_function"](rows, heads, positions[:, None, :, None], keys)
        dtype = kwargs.get("dtype") or torch.float32
        # Added to the scores, which both forms of attention take.
        made = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        if watch is not None:
            watch(made, kwargs["mask_function"])
        return made

    return mask


@contextmanager
def attention_function(attend: Callable[..., tuple[torch.Tensor, None]]) -> Iterator[None]:
    """While a model runs, `attend` computes the attention that transformers calls sdpa."""
    with _replaced(_registry("modeling_utils", "ALL_ATTENTION_FUNCTIONS"), {"sdpa": attend}):
        yield


@contextmanager
def _replaced(known: Any, functions: Mapping[str, Any]) -> Iterator[None]:
    before = {name: known[name] for name in functions}
    try:
        for name, function in functions.items():
            known[name] = function
        yield
    finally:
        for name, function in before.items():
            known[name] = function


@contextmanager
def attention_of_groups(heads: Mapping[int, int]) -> Iterator[None]:
    """While a model runs, queries that share keys and values are computed as further queries of one head.

    transformers copies keys and values for each head first, which for a single token reads and writes the whole cache;
    PyTorch's own `enable_gqa` does the same, more slowly. `heads` are those of keys and values, by layer.
    """

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        # [rows, heads of keys, queries that share one, tokens, width]
        shared = query.unflatten(1, (heads[getattr(module, "layer_idx", min(heads))], -1))
        if attention_mask is not None:
            sizes = (-1, -1, shared.shape[2], -1, -1)
            attention_mask = attention_mask.unsqueeze(2).expand(sizes).flatten(2, 3)
        output = torch.nn.functional.scaled_dot_product_attention(
            shared.flatten(2, 3), key, value, attn_mask=attention_mask, scale=options.get("scaling")
        )
        rows, count, tokens = query.shape[:3]
        return output.reshape(rows, count, tokens, -1).transpose(1, 2).contiguous(), None

    with attention_function(attend):
        yield
