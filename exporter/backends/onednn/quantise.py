"""Fit the ranges of a module's linears to samples, and let the linears round their inputs to codes of 8 bits.

The module then computes in fp32 what the int8 linears will compute. The trace keeps the rounding as operators in front
of each linear, and the graph's rewriting replaces them by linears on codes.

A few channels of a transformer's activations are a hundred times larger than the others, which a common scale leaves
only a few codes. SmoothQuant (Xiao et al., 2022) moves that size into the weights, which have one scale per row: each
channel is divided by a power of its largest number, and the column of the weights is multiplied by it. After an
activation function this is left out, as in that paper: the linear before it then gives codes directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.errors import BackendError

_CODES = 255
# As for IPEX, and measured the same way (docs/decisions/int8.md).
_ALPHA = 0.7
_LEAST = 1e-5
# Where the modules of activation functions are defined.
_ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")


class QuantisedLinear(torch.nn.Module):
    """A linear that first rounds its input to codes, each channel divided by its smoothing if there is one."""

    def __init__(self, linear: torch.nn.Linear, smoothing: torch.Tensor | None, low: float, high: float) -> None:
        super().__init__()
        self.linear = linear
        self.shrink = None
        if smoothing is not None:
            self.linear.weight = torch.nn.Parameter(linear.weight * smoothing, requires_grad=False)
            self.shrink = 1 / smoothing
        # Zero is a code, so that padding and the zeros of an activation function stay exact.
        low, high = min(low, 0.0), max(high, 0.0)
        self.scale = max((high - low) / _CODES, 1e-8)
        self.zero_point = round(-low / self.scale)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """The linear, applied to the numbers that the codes stand for."""
        if self.shrink is not None:
            value = value * self.shrink
        codes = torch.quantize_per_tensor(value, self.scale, self.zero_point, torch.quint8)
        output: torch.Tensor = self.linear(codes.dequantize())
        return output


@dataclass
class _Seen:
    """The observed inputs of linears that share them: per sample, the least and largest number of each channel."""

    linears: list[torch.nn.Linear]
    behind_activation: bool
    lows: list[torch.Tensor] = field(default_factory=list)
    highs: list[torch.Tensor] = field(default_factory=list)

    def smoothing(self) -> torch.Tensor | None:
        """A divisor per channel, or None. Linears of the same input share it, since they are joined later."""
        if self.behind_activation:
            return None
        largest = torch.stack([*self.lows, *self.highs]).abs().amax(dim=0).clamp(min=_LEAST)
        columns = torch.stack([linear.weight.abs().amax(dim=0) for linear in self.linears]).amax(dim=0)
        return (largest**_ALPHA / columns.clamp(min=_LEAST) ** (1 - _ALPHA)).clamp(min=_LEAST)

    def range(self, smoothing: torch.Tensor | None) -> tuple[float, float]:
        """The mean of the samples' extremes, so that one unusual sample does not make the steps larger for all."""
        divisor = 1.0 if smoothing is None else smoothing
        lows = torch.stack([(low / divisor).min() for low in self.lows])
        highs = torch.stack([(high / divisor).max() for high in self.highs])
        return lows.mean().item(), highs.mean().item()


def quantise_linears(
    module: torch.nn.Module, samples: Sequence[Mapping[str, torch.Tensor]], progress: Callable[[int], None]
) -> int:
    """Replace the linears that the samples reach; returns their number.

    Raises:
        BackendError: the samples reach no linear.
    """
    seen: dict[torch.nn.Module, _Seen] = {}
    # Holding the tensors of a sample keeps their identities unique.
    first: list[tuple[torch.Tensor, _Seen]] = []
    activated: list[torch.Tensor] = []

    def note(*passed: Any) -> None:
        activated.append(passed[-1])

    def watch(linear: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        value: torch.Tensor = inputs[0]
        if linear not in seen:
            behind_activation = any(value is tensor for tensor in activated)
            group = next((group for tensor, group in first if tensor is value), _Seen([], behind_activation))
            group.linears.append(linear)  # type: ignore[arg-type]  # hooks are on linears alone
            seen[linear] = group
            first.append((value, group))
        group = seen[linear]
        if linear is group.linears[0]:
            flat = value.reshape(-1, value.shape[-1])
            group.lows.append(flat.amin(dim=0))
            group.highs.append(flat.amax(dim=0))

    parts = list(module.modules())
    hooks = [part.register_forward_pre_hook(watch) for part in parts if type(part) is torch.nn.Linear]
    hooks += [part.register_forward_hook(note) for part in parts if type(part).__module__ in _ACTIVATIONS]
    try:
        with torch.no_grad():
            for number, sample in enumerate(samples, 1):
                module(**sample)
                progress(number)
                first.clear()
                activated.clear()
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise BackendError("the samples reach no linear of the model", "a linear to compute in int8")
    replaced = 0
    with torch.no_grad():
        fitted = {id(group): (smoothing := group.smoothing(), *group.range(smoothing)) for group in seen.values()}
        for part in list(module.modules()):
            for name, child in list(part.named_children()):
                if child in seen and isinstance(child, torch.nn.Linear):
                    setattr(part, name, QuantisedLinear(child, *fitted[id(seen[child])]))
                    replaced += 1
    return replaced
