"""Flatten the outputs of a model's inner part for the tracer, and rebuild them for the rest of the model.

Caches and other objects without floating-point tensors are left out: evaluation does not use them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.errors import TraceError


@dataclass(frozen=True)
class Structure:
    """How an output is built: one tensor (`kind` is None), or a class with named or numbered parts."""

    kind: type | None
    parts: tuple[tuple[str | int, Structure], ...] = ()


_TENSOR = Structure(None)


def structure_of(output: Any) -> Structure:
    """The structure of an output.

    Raises:
        TraceError: it holds no floating-point tensor.
    """
    structure = _structure(output)
    if structure is None:
        raise TraceError(
            f"the model returns a {type(output).__name__} without floating-point tensors",
            "tensors, in a tuple or in one of transformers' output classes",
        )
    return structure


def _structure(output: Any) -> Structure | None:
    if isinstance(output, torch.Tensor):
        return _TENSOR if output.is_floating_point() else None
    if isinstance(output, Mapping):
        items: Sequence[tuple[str | int, Any]] = list(output.items())
    elif isinstance(output, (tuple, list)):
        items = list(enumerate(output))
    else:
        return None
    parts = tuple((name, part) for name, value in items if (part := _structure(value)) is not None)
    return Structure(type(output), parts) if parts else None


def flatten(output: Any, structure: Structure) -> list[torch.Tensor]:
    """The tensors of an output with this structure, in order."""
    if structure.kind is None:
        return [output]
    return [tensor for name, part in structure.parts for tensor in flatten(output[name], part)]


def unflatten(structure: Structure, tensors: Sequence[torch.Tensor]) -> Any:
    """The output with this structure; parts that were left out are missing, or None if the class declares them."""
    return _build(structure, iter(tensors))


def _build(structure: Structure, tensors: Iterator[torch.Tensor]) -> Any:
    if structure.kind is None:
        return next(tensors)
    values = {name: _build(part, tensors) for name, part in structure.parts}
    if issubclass(structure.kind, (tuple, list)):
        # Parts that were left out become None, so that the others keep their positions.
        return tuple(values.get(index) for index in range(max(map(int, values)) + 1))
    return structure.kind(**{str(name): value for name, value in values.items()})
