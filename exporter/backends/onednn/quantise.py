"""Fit the ranges of a module's linears to samples, and mark where they take codes of 8 bits.

In: a module in evaluation mode, samples of its inputs. Out: the same module, its linears taking quantised inputs.
Refuses (BackendError) a module whose linears the samples do not reach.

The module then computes, in fp32, what the int8 linears will: each input is rounded to one of 256 codes. The trace
keeps that as two operators in front of each linear, and the graph's rewriting puts linears on codes in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from runtime.errors import BackendError

_CODES = 255


class QuantisedLinear(torch.nn.Module):
    """A linear that rounds its input to codes first."""

    def __init__(self, linear: torch.nn.Linear, low: float, high: float) -> None:
        super().__init__()
        self.linear = linear
        # Zero is a code: padding and what an activation cuts off stay exact.
        low, high = min(low, 0.0), max(high, 0.0)
        self.scale = max((high - low) / _CODES, 1e-8)
        self.zero_point = round(-low / self.scale)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """As the linear, of what the codes stand for."""
        codes = torch.quantize_per_tensor(value, self.scale, self.zero_point, torch.quint8)
        answer: torch.Tensor = self.linear(codes.dequantize())
        return answer


def quantise_linears(
    module: torch.nn.Module, samples: Sequence[Mapping[str, torch.Tensor]], progress: Callable[[int], None]
) -> int:
    """Replace the linears that the samples reach; how many they are.

    The range of an input is the mean over the samples of their smallest and largest numbers: a single odd sample does
    not coarsen all others.

    Raises:
        BackendError: the samples reach no linear.
    """
    ranges: dict[torch.nn.Module, list[tuple[float, float]]] = {}

    def watch(linear: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        low, high = torch.aminmax(inputs[0])
        ranges.setdefault(linear, []).append((low.item(), high.item()))

    linears = [part for part in module.modules() if type(part) is torch.nn.Linear]
    hooks = [linear.register_forward_pre_hook(watch) for linear in linears]
    try:
        with torch.no_grad():
            for number, sample in enumerate(samples, 1):
                module(**sample)
                progress(number)
    finally:
        for hook in hooks:
            hook.remove()
    if not ranges:
        raise BackendError("no linear of the model was reached by the samples", "one to compute in int8")
    replaced = 0
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if child in ranges and isinstance(child, torch.nn.Linear):
                lows, highs = zip(*ranges[child], strict=True)
                setattr(part, name, QuantisedLinear(child, sum(lows) / len(lows), sum(highs) / len(highs)))
                replaced += 1
    return replaced
