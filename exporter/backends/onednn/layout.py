"""Follow through a graph which axes of a tensor are the batch's rows and their tokens.

A node keeps tokens apart if each token of its output depends only on that token of its inputs, whatever rows and
positions there are: then it computes the same for tokens that follow each other in a single row. For other nodes, and
for unknown ones, there is no layout.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from exporter.backends.onednn.int8 import DEQUANTISE, QUANTISE
from exporter.tracing.graphs.graph import Shapes, constant
from exporter.tracing.graphs.ir import Node


class Layout(NamedTuple):
    """The axes of rows and of tokens, counted from the front, and the number of axes."""

    rows: int
    tokens: int
    rank: int


# Between a model's layers: [rows, tokens, features].
TOKENS = Layout(0, 1, 3)

_ELEMENTWISE = {
    *("aten::gelu", "aten::relu", "aten::silu", "aten::tanh", "aten::sigmoid", "aten::erf", "aten::exp", "aten::neg"),
    *("aten::pow", "aten::sqrt", "aten::rsqrt", "aten::square", "aten::clamp", "aten::leaky_relu", "aten::elu"),
    *("aten::hardtanh", "aten::softplus", "aten::mish", "aten::hardswish", "aten::dropout", "aten::clone"),
    *("aten::contiguous", "aten::detach", "aten::alias", "aten::to", "aten::float", "aten::type_as", "aten::relu6"),
    # One scale for the whole tensor.
    *(QUANTISE, DEQUANTISE),
}
# Of a second tensor these use only the type.
_LIKE_ANOTHER = {"aten::to", "aten::type_as"}
# Operators of two tensors, or of a tensor and a number.
BINARY = {"aten::add", "aten::sub", "aten::mul", "aten::div"}
# Operators with a list of sizes, in which those of rows and tokens must be replaced.
VIEWS = {"aten::view", "aten::reshape", "aten::expand"}


def layout_of(node: Node, layouts: dict[str, Layout], sizes: Shapes) -> Layout | None:
    """The layout of a node's first output; lists of tensors have that of their members. Not for `BINARY` operators."""
    kind = node.kind()
    if kind == "prim::ListConstruct":
        members = {layouts.get(value.debugName()) for value in node.inputs()}
        return members.pop() if len(members) == 1 else None
    if not node.inputsSize():
        return None
    layout = layouts.get(node.inputsAt(0).debugName())
    if layout is None:
        return None
    if kind in _ELEMENTWISE:
        return layout if kind in _LIKE_ANOTHER or _one_tensor(node) else None
    if kind == "prim::ListUnpack":
        return layout
    if kind == "aten::linear":
        known = constant(node.inputsAt(1)) is not None
        return layout if known and layout.tokens < layout.rank - 1 else None
    if kind == "aten::layer_norm":
        return layout if len(constant(node.inputsAt(1)) or ()) <= layout.rank - 1 - _last(layout) else None
    if kind == "aten::expand":
        sized = node.inputsAt(1).node()
        return layout if sized.kind() == "prim::ListConstruct" and sized.inputsSize() == layout.rank else None
    if kind in VIEWS:
        return _viewed(node, layout, sizes)
    if kind in ("aten::transpose", "aten::permute"):
        return _moved(node, layout)
    return _along(node, layout)


def _one_tensor(node: Node) -> bool:
    """Whether all arguments but the first are numbers, since a tensor could have a value per token."""
    others = [value for value in list(node.inputs())[1:] if value.type().kind() == "TensorType"]
    return all(isinstance(known := constant(value), torch.Tensor) and known.dim() == 0 for value in others)


def _along(node: Node, layout: Layout) -> Layout | None:
    """Operators that work along one axis, which must be neither rows nor tokens."""
    kind = node.kind()
    positions = {
        "aten::softmax": 1,
        "aten::slice": 1,
        "aten::narrow": 1,
        "aten::select": 1,
        "aten::unbind": 1,
        "aten::unsqueeze": 1,
        "aten::cat": 1,
        "aten::chunk": 2,
        "aten::split": 2,
        "aten::split_with_sizes": 2,
        "aten::mean": 1,
        "aten::sum": 1,
    }
    if kind not in positions or node.inputsSize() <= positions[kind]:
        return None
    axis = constant(node.inputsAt(positions[kind]))
    reduces = kind in ("aten::mean", "aten::sum")
    if reduces:
        # Over one axis, which is kept, as in norms.
        if not isinstance(axis, list) or len(axis) != 1 or constant(node.inputsAt(2)) is not True:
            return None
        axis = axis[0]
    if not isinstance(axis, int):
        return None
    rank = layout.rank + (kind == "aten::unsqueeze")
    axis %= rank
    if kind == "aten::unsqueeze":
        return Layout(layout.rows + (axis <= layout.rows), layout.tokens + (axis <= layout.tokens), rank)
    if axis in layout[:2]:
        return None
    if kind in ("aten::select", "aten::unbind"):
        return Layout(layout.rows - (axis < layout.rows), layout.tokens - (axis < layout.tokens), rank - 1)
    return layout


def _last(layout: Layout) -> int:
    return max(layout.rows, layout.tokens)


def _viewed(node: Node, layout: Layout, sizes: Shapes) -> Layout | None:
    """A view that changes axes before or after the tokens; its sizes must be a list, so that they can be replaced."""
    before, after = (sizes.get(value.debugName(), ()) for value in (node.inputsAt(0), node.output()))
    if (
        layout.rows != 0
        or not after
        or before[0] != after[0]
        or node.inputsAt(1).node().kind() != "prim::ListConstruct"
    ):
        return None
    if node.inputsAt(1).node().inputsSize() != len(after):
        return None
    parts = (math.prod(before[1 : layout.tokens]), before[layout.tokens], math.prod(before[layout.tokens + 1 :]))
    for place in range(1, len(after)):
        if (math.prod(after[1:place]), after[place], math.prod(after[place + 1 :])) == parts:
            return Layout(0, place, len(after))
    return None


def _moved(node: Node, layout: Layout) -> Layout | None:
    if node.kind() == "aten::permute":
        order = constant(node.inputsAt(1))
        if not isinstance(order, list) or len(order) != layout.rank:
            return None
        order = [axis % layout.rank for axis in order]
        return Layout(order.index(layout.rows), order.index(layout.tokens), layout.rank)
    one, two = (constant(value) for value in list(node.inputs())[1:])
    if not isinstance(one, int) or not isinstance(two, int):
        return None
    swap = {one % layout.rank: two % layout.rank, two % layout.rank: one % layout.rank}
    return Layout(swap.get(layout.rows, layout.rows), swap.get(layout.tokens, layout.tokens), layout.rank)
