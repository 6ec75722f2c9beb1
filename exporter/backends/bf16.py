"""Convert a model to bf16 by its weights, for the backends that need no autocast."""

from __future__ import annotations

from typing import Any

import torch

# Modules of PyTorch that refuse inputs of another type than their weight's.
_STRICT = (
    torch.nn.Linear,
    torch.nn.LayerNorm,
    torch.nn.GroupNorm,
    torch.nn.modules.conv._ConvNd,
    torch.nn.modules.batchnorm._BatchNorm,
)


def to_bf16(module: torch.nn.Module) -> torch.nn.Module:
    """Weights become bf16, and inputs of float32 are converted where a module would refuse them.

    Pictures and sounds are float32, and so is what some models compute in between; most models convert neither. Where
    the input has the weight's type, the trace is as it would be without this. Measured faster than autocast, which
    converts around every softmax.
    """
    module = module.to(torch.bfloat16)
    for each in module.modules():
        if isinstance(each, _STRICT) and isinstance(each.weight, torch.Tensor):
            each.register_forward_pre_hook(_converted)
    return module


def _converted(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    first = inputs[0] if inputs else None
    if not isinstance(first, torch.Tensor) or first.dtype != torch.float32 or module.weight.dtype != torch.bfloat16:
        return None
    return (first.to(module.weight.dtype), *inputs[1:])
