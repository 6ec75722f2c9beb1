"""A part of a model as the tracer needs it: a fixed signature, a tuple of tensors out.

In: a module, names of tensors, other arguments that stay as they are, how to take the answer apart. Out: a module whose
`forward` names these tensors. Refuses nothing.
"""

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
        """The answer's tensors in float32, for tensors given in order, by name, or both."""
        tensors = dict(zip(self.names, args, strict=False)) | kwargs
        return tuple(tensor.float() for tensor in self.flatten(self.part(**cloned_floats(tensors), **self.others)))

    @staticmethod
    def of(
        part: torch.nn.Module,
        names: tuple[str, ...],
        others: Mapping[str, Any],
        flatten: Callable[[Any], Sequence[torch.Tensor]],
    ) -> Traceable:
        """In evaluation mode, as IPEX looks at the outermost module."""
        kind = type("Traceable", (Traceable,), {"forward": with_signature(Traceable.forward, names)})
        made: Traceable = kind(part, names, others, flatten)
        return made.eval()
