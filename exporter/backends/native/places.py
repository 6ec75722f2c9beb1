"""Which numbers of a tensor a value has that was split or sliced off it, reshaped, or got its axes in another order.

Found by giving the operators the places of the numbers, at the example's sizes, and not from what each model writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from exporter.tracing.graphs.graph import Shapes, constant
from exporter.tracing.graphs.ir import Value

RESHAPES = ("aten::view", "aten::reshape")
# Operators of which each result is a part of their first input; the arguments that follow are numbers.
_PARTS: dict[str, Callable[..., Any]] = {
    "aten::split": torch.split,
    "aten::split_with_sizes": torch.split_with_sizes,
    "aten::chunk": torch.chunk,
    "aten::unbind": torch.unbind,
}
_ORDERS: dict[str, Callable[..., torch.Tensor]] = {
    "aten::transpose": torch.transpose,
    "aten::permute": torch.permute,
    "aten::contiguous": lambda x, *_: x,
}


def shared_source(values: list[Value], axes: int, sizes: Shapes) -> Value | None:
    """The tensor with so many axes of which all are parts or views; None if there is none."""
    chains: list[dict[str, Value]] = []
    for each in values:
        chain: dict[str, Value] = {}
        value: Value | None = each
        while value is not None:
            chain[value.debugName()] = value
            value = _source(value)
        chains.append(chain)
    shared = (value for name, value in chains[0].items() if all(name in chain for chain in chains))
    return next((value for value in shared if len(sizes.get(value.debugName(), ())) == axes), None)


def places(value: Value, whole: Value, numbers: torch.Tensor, sizes: Shapes) -> torch.Tensor | None:
    """Which of the tensor's numbers the value has, at the example's sizes; None if that cannot be told."""
    if value.debugName() == whole.debugName():
        return numbers
    node, source = value.node(), _source(value)
    before = None if source is None else places(source, whole, numbers, sizes)
    if before is None:
        return None
    if node.kind() in RESHAPES:
        return before.reshape(sizes[value.debugName()])
    names = [output.debugName() for output in node.outputs()]
    node = node.inputsAt(0).node() if node.kind() == "prim::ListUnpack" else node
    given = list(node.inputs())[1:]
    if any(each.node().kind() != "prim::Constant" for each in given):
        return None
    settings = [constant(each) for each in given]
    if node.kind() == "aten::slice":
        axis, start, end, step = settings
        return before.movedim(axis, 0)[start:end:step].movedim(0, axis)
    if node.kind() in _ORDERS:
        return _ORDERS[node.kind()](before, *settings)
    found: torch.Tensor = _PARTS[node.kind()](before, *settings)[names.index(value.debugName())]
    return found


def _source(value: Value) -> Value | None:
    """The tensor of which the value is a part or a view; None if it is computed."""
    node = value.node()
    if node.kind() == "prim::ListUnpack":
        node = node.inputsAt(0).node()
        return node.inputsAt(0) if node.kind() in _PARTS else None
    return node.inputsAt(0) if node.kind() in (*RESHAPES, *_ORDERS, "aten::slice") else None
