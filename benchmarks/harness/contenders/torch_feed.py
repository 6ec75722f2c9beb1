"""Shared by PyTorch's contenders: convert arrays to a tuple of tensors in the model's order, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.harness.contenders import Loaded
from benchmarks.harness.models import INPUT_NAMES


def tensors(model: str, arrays: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """The model's inputs in order; numbers that are no ids in the given type."""
    found = [torch.from_numpy(arrays[name]) for name in INPUT_NAMES[model]]
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in found)


def loaded(model: str, function: Callable[..., Any], dtype: torch.dtype = torch.float32) -> Loaded:
    """`function` called in inference mode; images are cast before the clock starts."""

    def call(feed: tuple[torch.Tensor, ...]) -> Any:
        with torch.inference_mode():
            return function(*feed)

    def array(answer: Any) -> Any:
        return (answer if isinstance(answer, torch.Tensor) else answer[0]).float().numpy()

    return Loaded(lambda arrays: tensors(model, arrays, dtype), call, array)


def dtype_of(precision: str) -> torch.dtype:
    """The type of weights; int8 starts from fp32."""
    return torch.bfloat16 if precision == "bf16" else torch.float32
