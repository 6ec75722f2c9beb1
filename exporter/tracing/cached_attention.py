"""Attention over a cache by one operator of this project, for models whose attention is transformers' own.

The operator writes a call's keys and values to their places and lets each query see the keys up to its own position, or
within a window. Whether a model's attention is that is found out by running it once: what its layers give to
transformers' table of attention functions, and which keys its masks show. Nothing of this is per architecture.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from exporter.loading.decoder_cache import InPlaceCache, Pair, attention_function

# Numbers of a head that the project's operators take (runtime/kernels/checks.h).
WIDEST = 256
# What layers pass on besides the tensors and the factor of the scores, and what changes nothing in an evaluation.
_HARMLESS = {"scaling", "dropout", "sliding_window", "is_causal", "position_ids", "cache_position", "use_cache"}
_HARMLESS |= {"output_attentions", "output_hidden_states", "return_dict", "past_key_values", "layer_idx"}
# Up to this length, masks are looked at for all positions; of longer ones at some, and all of the keys there.
_ALL = 2048


@dataclass(frozen=True)
class Sight:
    """What the queries of a layer see: keys up to their own position, in a window unless it is 0.

    With `masked`, the model's own mask says which of these, or adds numbers to their scores.
    """

    window: int = 0
    masked: bool = False


class NewKeysCache(InPlaceCache):
    """Gives a layer its new keys and values back: the operator writes them to the tensors, and reads all."""

    def __init__(self, positions: torch.Tensor, pairs: Mapping[int, Pair]) -> None:
        super().__init__(positions, pairs)
        self.positions, self.pairs = positions, pairs
        self.new: dict[int, Pair] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Pair:
        """What came."""
        self.new[layer_idx] = key_states, value_states
        return key_states, value_states


class Unsuited(Exception):
    """Why a model's attention cannot be the operator's, for people."""


class AttentionProbe:
    """Records one run of a model: which layers' attention the operator can take over, and what their queries see.

    Args:
        cache: the one that the model gets.
        longest: the number of tokens that a row may have.
    """

    def __init__(self, cache: NewKeysCache, longest: int) -> None:
        self._cache, self._longest = cache, longest
        self._masks: list[tuple[torch.Tensor, Sight]] = []
        self._layers: dict[int, Sight] = {}

    @property
    def found(self) -> dict[int, Sight]:
        """By layer.

        Raises:
            Unsuited: a layer with keys and values computes its attention itself.
        """
        missing = sorted(set(self._cache.new) - set(self._layers))
        if missing:
            raise Unsuited(f"layer {missing[0]} computes its attention itself")
        return self._layers

    def watching(self) -> AbstractContextManager[None]:
        """Around the run, in which `mask` gets the masks."""
        return attention_function(self._attend)

    def mask(self, made: torch.Tensor, shows: Callable[..., torch.Tensor]) -> None:
        """Remember a mask, and what it shows."""
        self._masks.append((made, sight_of(shows, self._longest)))

    def _attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        layer = getattr(module, "layer_idx", None)
        if layer not in self._cache.new:
            raise Unsuited("a layer has no number of its own")
        if not all(map(_same, (key, value), self._cache.new[layer])):
            raise Unsuited(f"layer {layer} changes its keys and values behind the cache")
        if unknown := [name for name, given in options.items() if given is not None and name not in _HARMLESS]:
            raise Unsuited(f"the attention of layer {layer} takes {unknown[0]}")
        caches = self._cache.pairs[layer]
        types = {query.dtype, torch.bfloat16}
        if (
            max(query.shape[3], value.shape[3]) > WIDEST
            or key.dtype != query.dtype
            or any(one.dtype not in types for one in caches)
        ):
            raise Unsuited(f"layer {layer} has heads of other types or sizes")
        self._layers[layer] = self._seen(mask, query.dtype)
        return torch.zeros([query.shape[0], query.shape[2], query.shape[1], value.shape[3]], dtype=value.dtype), None

    def _seen(self, mask: Any, dtype: torch.dtype) -> Sight:
        for made, sight in self._masks:
            if made is mask:
                return sight
        if not self._masks or not isinstance(mask, torch.Tensor) or mask.dtype not in (torch.float32, dtype):
            raise Unsuited("its masks are not made by transformers")
        # Made of such a mask: what it hides stays hidden.
        return Sight(masked=True)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other


def sight_of(shows: Callable[..., torch.Tensor], longest: int) -> Sight:
    """What transformers' function of a mask shows, of rows of up to `longest` tokens.

    Args:
        shows: takes numbers of rows, heads, queries and keys, and tells which of the keys are seen.
        longest: the number of tokens of the longest row.

    Raises:
        Unsuited: a query sees keys behind itself.
    """
    keys = torch.arange(longest)
    window: int | None = None
    plain = True
    # The last query first: how far it sees back is the window, if there is one.
    for some in torch.tensor(_places(longest)).flip(0).split(256):
        queries = some[:, None]
        rows, heads = torch.arange(2)[:, None, None, None], torch.arange(2)[None, :, None, None]
        seen = torch.as_tensor(shows(rows, heads, queries[None, None], keys[None, None, None])).bool()
        before = keys <= queries
        if (seen & ~before).any():
            raise Unsuited("a token sees those behind it")
        if window is None:
            first = int(seen.flatten(0, -2)[0].to(torch.int64).argmax())
            window = longest - first if first > 0 else 0
        expected = before if window == 0 else before & (queries - keys < window)
        plain = plain and bool((seen == expected).all())
    return Sight(window or 0) if plain else Sight(masked=True)


def _places(longest: int) -> Sequence[int]:
    """The positions at which a mask is looked at."""
    if longest <= _ALL:
        return range(longest)
    powers = (2**power + step for power in range(longest.bit_length()) for step in (-1, 0, 1))
    steps = (longest * number // 64 + step for number in range(64) for step in (-1, 0, 1))
    ends = itertools.chain(range(256), range(longest - 256, longest))
    return sorted({place for place in itertools.chain(powers, steps, ends) if 0 <= place < longest})


@contextmanager
def own_attention(cache: NewKeysCache, sights: Mapping[int, Sight]) -> Iterator[None]:
    """While a model runs, its attention is the operator's."""

    def attend(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        layer = module.layer_idx
        sight, (keys, values), scale = sights[layer], cache.pairs[layer], options.get("scaling")
        output = torch.ops.em_native.attend_cached(
            query,
            key,
            value,
            keys,
            values,
            cache.positions,
            mask if sight.masked else None,
            query.shape[3] ** -0.5 if scale is None else float(scale),
            sight.window,
        )
        return output, None

    with attention_function(attend):
        yield
