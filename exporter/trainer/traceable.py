"""A part of a model as the tracer needs it: a fixed signature, and a tuple of tensors as its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from exporter.tracing.adapter import cloned_floats, with_signature


class Traceable(torch.nn.Module):
    """Instances come from `of`, which gives each its own `forward` signature."""

    def __init__(
        self,
        part: torch.nn.Module,
        names: tuple[str, ...],
        others: Mapping[str, Any],
        flatten: Callable[[Any], Sequence[torch.Tensor]],
    ) -> None:
        super().__init__()
        self.part = part
        self.names = names
        self.others = dict(others)
        self.flatten = flatten

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The output's tensors in float32, for tensors given in order, by name, or both."""
        tensors = dict(zip(self.names, args, strict=False)) | kwargs
        return tuple(tensor.float() for tensor in self.flatten(self.part(**cloned_floats(tensors), **self.others)))

    @staticmethod
    def of(
        part: torch.nn.Module,
        names: tuple[str, ...],
        others: Mapping[str, Any],
        flatten: Callable[[Any], Sequence[torch.Tensor]],
    ) -> Traceable:
        """In evaluation mode, which IPEX reads from the outermost module."""
        kind = type("Traceable", (Traceable,), {"forward": with_signature(Traceable.forward, names)})
        made: Traceable = kind(part, names, others, flatten)
        return made.eval()
