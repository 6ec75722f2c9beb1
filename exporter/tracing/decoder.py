"""A decoder with its cache as inputs, and the methods of its file: `decode`, and `forward` for one pass.

Keys and values are written in place (`exporter.loading.decoder_cache`), so one traced graph serves prompts, pieces of
them and single tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from exporter.loading.decoder_cache import InPlaceCache, Watch, attention_of_groups, masks_by_position
from exporter.loading.generation_settings import CacheSizes
from exporter.loading.model_errors import FAILURES
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.adapter import with_signature
from exporter.tracing.cached_attention import AttentionProbe, NewKeysCache, Sight, Unsuited, own_attention
from runtime.format.manifest import CacheTensor, Precision
from runtime.host.torchscript import ScriptModule, around, define

# Rows and tokens of the traced example, and the length of its caches: no two are equal, and none is 1.
_ROWS, _TOKENS, _KEPT, _LENGTH = 2, 5, 3, 11
# What `decode` takes before the caches.
_FIRST = ("input_ids", "positions", "kept")


class Decoder(torch.nn.Module):
    """Calls a model with caches from outside; gives the logits of the tokens that `kept` numbers.

    Instances come from `Decoding.module`, which gives each its own `forward` signature.
    """

    def __init__(self, model: Any, sizes: Sequence[CacheSizes]) -> None:
        super().__init__()
        self.model = model
        self._layers = tuple(one.layer for one in sizes)
        self._heads = {one.layer: one.keys[0] for one in sizes}
        # By layer, where attention is by this project's operator; None where it is the model's.
        self._sights: dict[int, Sight] | None = None
        parameters = inspect.signature(model.forward).parameters
        self._places = [name for name in ("position_ids", "cache_position") if name in parameters]

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor]:
        """The logits, float32 [rows, kept, vocabulary]."""
        ids, positions, kept, *tensors = [*args, *kwargs.values()]
        pairs = self._pairs(tensors)
        if self._sights is not None:
            cache = NewKeysCache(positions, pairs)
            with own_attention(cache, self._sights):
                return (self._logits(ids, positions, kept, cache),)
        with attention_of_groups(self._heads):
            return (self._logits(ids, positions, kept, InPlaceCache(positions, pairs)),)

    def use_own_attention(self, example: ExampleInputs, longest: int) -> str:
        """Compute attention by this project's operator from here on, if the model's is what that computes.

        Args:
            example: inputs to try it with.
            longest: the number of tokens that a row may have.

        Returns:
            What was found, for people.
        """
        ids, positions, kept, *tensors = example.as_tuple()
        cache = NewKeysCache(positions, self._pairs(tensors))
        probe = AttentionProbe(cache, longest)
        try:
            with torch.no_grad(), probe.watching():
                self._logits(ids, positions, kept, cache, probe.mask)
            self._sights = probe.found
        except Unsuited as reason:
            return f"attention by PyTorch's operators: {reason}"
        except FAILURES as error:
            # Such as one that adds its own numbers to scores of all keys.
            return f"attention by PyTorch's operators: the model fails with new keys alone ({type(error).__name__})"
        masked = sum(sight.masked for sight in self._sights.values())
        windows = sum(sight.window > 0 for sight in self._sights.values())
        kinds = [f"{count} {what}" for count, what in ((windows, "with a window"), (masked, "with a mask")) if count]
        return f"{len(self._sights)} attentions over the cache{', ' if kinds else ''}{' and '.join(kinds)}"

    def _pairs(self, tensors: Sequence[torch.Tensor]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        return dict(zip(self._layers, zip(tensors[::2], tensors[1::2], strict=True), strict=True))

    def _logits(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        kept: torch.Tensor,
        cache: InPlaceCache,
        watch: Watch | None = None,
    ) -> torch.Tensor:
        # Positions of a whole batch, for releases of transformers that ask for them; masks do not go by these.
        places = {"position_ids": positions, "cache_position": positions[0]}
        with masks_by_position(positions, watch), _Selection(self.model, kept) as selection:
            output = self.model(
                input_ids=ids,
                past_key_values=cache,
                use_cache=True,
                **{name: places[name] for name in self._places},
            )
        return selection.of(output.logits).float()


class _Selection:
    """While a model runs, its head gets the vectors of some tokens alone.

    A model whose head is not called as a module computes all logits, of which `of` then takes some.
    """

    def __init__(self, model: Any, kept: torch.Tensor) -> None:
        self._kept = kept
        self._head = model.get_output_embeddings()
        self._done = False
        self._handle: Any = None

    def __enter__(self) -> _Selection:
        if self._head is not None:
            self._handle = self._head.register_forward_pre_hook(self._select)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _select(self, _head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        self._done = True
        return (self._taken(inputs[0]), *inputs[1:])

    def _taken(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.gather(1, self._kept[:, :, None].expand(-1, -1, tensor.shape[2]))

    def of(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of the chosen tokens."""
        return logits if self._done else self._taken(logits)


@dataclass(frozen=True)
class Decoding:
    """How a decoder is traced and what its file's methods take: the sizes that its layers keep."""

    sizes: tuple[CacheSizes, ...]
    precision: Precision
    # The number of tokens that a row may have.
    longest: int

    @property
    def caches(self) -> tuple[CacheTensor, ...]:
        """Keys and values of each layer in turn."""
        dtype: Any = "bfloat16" if self.precision == "bf16" else "float32"
        return tuple(CacheTensor(*size, dtype) for one in self.sizes for size in (one.keys, one.values))

    @property
    def _names(self) -> list[str]:
        return [f"{what}_{one.layer}" for one in self.sizes for what in ("keys", "values")]

    def module(self, model: Any) -> Decoder:
        """The model with its caches as inputs."""
        names = (*_FIRST, *self._names)
        kind = type("Decoder", (Decoder,), {"forward": with_signature(Decoder.forward, names)})
        made: Decoder = kind(model, self.sizes)
        return made.eval()

    def example(self, vocabulary: int) -> ExampleInputs:
        """Inputs to trace with: two rows that stand at different places."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocabulary, (_ROWS, _TOKENS), generator=generator)
        positions = torch.stack([torch.arange(_TOKENS), torch.arange(_TOKENS) + _LENGTH - _TOKENS - 2])
        kept = torch.tensor([[0, 2, 4], [1, 3, 4]])
        assert kept.shape == (_ROWS, _KEPT)
        caches = {
            name: torch.zeros([_ROWS, cache.heads, _LENGTH, cache.width], dtype=getattr(torch, cache.dtype))
            for name, cache in zip(self._names, self.caches, strict=True)
        }
        return ExampleInputs({"input_ids": ids, "positions": positions, "kept": kept} | caches)

    def kept_in_fp32(self, model: Any) -> AbstractContextManager[None]:
        """Around the conversion of a model to bf16: rotary frequencies and their like stay as they are."""
        return _Unconverted(model) if self.precision == "bf16" else nullcontext()

    def finish(self, traced: ScriptModule) -> ScriptModule:
        """The file's module around the trace: `decode`, `forward`, and `prepare` if the trace has it."""
        whole = around(traced)
        names = ", ".join(_FIRST + tuple(self._names))
        typed = ", ".join(f"{name}: Tensor" for name in (*_FIRST, *self._names))
        define(whole, f"def decode(self, {typed}):\n    return self.inner.forward({names})\n")
        lines = [
            "def forward(self, input_ids: Tensor):",
            "    rows, tokens = input_ids.size(0), input_ids.size(1)",
            "    positions = torch.arange(tokens).unsqueeze(0).expand([rows, tokens])",
        ]
        lines += [
            f"    {name} = torch.zeros([rows, {one.heads}, tokens, {one.width}], dtype=torch.{one.dtype})"
            for name, one in zip(self._names, self.caches, strict=True)
        ]
        lines.append(f"    return self.inner.forward(input_ids, positions, positions, {', '.join(self._names)})")
        define(whole, "\n".join(lines) + "\n")
        if traced._c._has_method("prepare"):
            define(whole, "def prepare(self) -> None:\n    self.inner.prepare()\n")
        return whole


class _Unconverted:
    """Puts back the buffers that are no weights: tables that a model computes from its configuration."""

    def __init__(self, model: Any) -> None:
        stored = set(model.state_dict())
        self._before = [
            (module, name, buffer)
            for path, module in model.named_modules()
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.is_floating_point() and f"{path}.{name}".lstrip(".") not in stored
        ]

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, *_: object) -> None:
        for module, name, buffer in self._before:
            setattr(module, name, buffer)
