"""Where the batch's rows and their tokens stand in a tensor, followed through a graph.

In: a node, the layouts of its inputs, the example's shapes. Out: the layout of what the node gives, or None where it
mixes tokens, or nothing here knows it. Refuses nothing.

A node keeps tokens apart if each token of its answer depends on that token of its inputs alone, whatever rows and
places there are: it then does the same for tokens that stand one behind the other in a single row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from exporter.backends.onednn.int8 import DEQUANTISE, QUANTISE
from exporter.tracing.graphs.graph import Shapes, constant


class Layout(NamedTuple):
    """The axes of rows and of tokens, counted from the front, and the number of axes."""

    rows: int
    tokens: int
    rank: int


# As a model's layers hand it on: [rows, tokens, features].
TOKENS = Layout(0, 1, 3)

_ELEMENTWISE = {
    *("aten::gelu", "aten::relu", "aten::silu", "aten::tanh", "aten::sigmoid", "aten::erf", "aten::exp", "aten::neg"),
    *("aten::pow", "aten::sqrt", "aten::rsqrt", "aten::square", "aten::clamp", "aten::leaky_relu", "aten::elu"),
    *("aten::hardtanh", "aten::softplus", "aten::mish", "aten::hardswish", "aten::dropout", "aten::clone"),
    *("aten::contiguous", "aten::detach", "aten::alias", "aten::to", "aten::float", "aten::type_as", "aten::relu6"),
    # One scale for the whole tensor.
    *(QUANTISE, DEQUANTISE),
}
# Of a second tensor they take the type alone.
_LIKE_ANOTHER = {"aten::to", "aten::type_as"}
# Operators of two tensors, or of a tensor and a number.
BINARY = {"aten::add", "aten::sub", "aten::mul", "aten::div"}
# Operators with a list of sizes, in which those of rows and tokens have to be written anew.
VIEWS = {"aten::view", "aten::reshape", "aten::expand"}


def layout_of(node: Any, layouts: dict[str, Layout], sizes: Shapes) -> Layout | None:
    """The layout of a node's first output; lists of tensors have their members'. `BINARY` are not for here."""
    kind = node.kind()
    if kind == "prim::ListConstruct":
        members = {layouts.get(value.debugName()) for value in node.inputs()}
        return members.pop() if len(members) == 1 else None
    if not node.inputsSize():
        return None
    given = layouts.get(node.inputsAt(0).debugName())
    if given is None:
        return None
    if kind in _ELEMENTWISE:
        return given if kind in _LIKE_ANOTHER or _one_tensor(node) else None
    if kind == "prim::ListUnpack":
        return given
    if kind == "aten::linear":
        known = constant(node.inputsAt(1)) is not None
        return given if known and given.tokens < given.rank - 1 else None
    if kind == "aten::layer_norm":
        return given if len(constant(node.inputsAt(1)) or ()) <= given.rank - 1 - _last(given) else None
    if kind == "aten::expand":
        sized = node.inputsAt(1).node()
        return given if sized.kind() == "prim::ListConstruct" and sized.inputsSize() == given.rank else None
    if kind in VIEWS:
        return _viewed(node, given, sizes)
    if kind in ("aten::transpose", "aten::permute"):
        return _moved(node, given)
    return _along(node, given)


def _one_tensor(node: Any) -> bool:
    """Whether all arguments but the first are numbers: a bound for each token has a layout of its own."""
    others = [value for value in list(node.inputs())[1:] if value.type().kind() == "TensorType"]
    return all(isinstance(known := constant(value), torch.Tensor) and known.dim() == 0 for value in others)


def _along(node: Any, given: Layout) -> Layout | None:
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
        # Of one axis that stays, as norms take it.
        if not isinstance(axis, list) or len(axis) != 1 or constant(node.inputsAt(2)) is not True:
            return None
        axis = axis[0]
    if not isinstance(axis, int):
        return None
    rank = given.rank + (kind == "aten::unsqueeze")
    axis %= rank
    if kind == "aten::unsqueeze":
        return Layout(given.rows + (axis <= given.rows), given.tokens + (axis <= given.tokens), rank)
    if axis in given[:2]:
        return None
    if kind in ("aten::select", "aten::unbind"):
        return Layout(given.rows - (axis < given.rows), given.tokens - (axis < given.tokens), rank - 1)
    return given


def _last(given: Layout) -> int:
    return max(given.rows, given.tokens)


def _viewed(node: Any, given: Layout, sizes: Shapes) -> Layout | None:
    """A view of what stands before the tokens, or behind them; its sizes must be a list that can be written anew."""
    before, after = (sizes.get(value.debugName(), ()) for value in (node.inputsAt(0), node.output()))
    if given.rows != 0 or not after or before[0] != after[0] or node.inputsAt(1).node().kind() != "prim::ListConstruct":
        return None
    if node.inputsAt(1).node().inputsSize() != len(after):
        return None
    parts = (math.prod(before[1 : given.tokens]), before[given.tokens], math.prod(before[given.tokens + 1 :]))
    for place in range(1, len(after)):
        if (math.prod(after[1:place]), after[place], math.prod(after[place + 1 :])) == parts:
            return Layout(0, place, len(after))
    return None


def _moved(node: Any, given: Layout) -> Layout | None:
    if node.kind() == "aten::permute":
        order = constant(node.inputsAt(1))
        if not isinstance(order, list) or len(order) != given.rank:
            return None
        order = [axis % given.rank for axis in order]
        return Layout(order.index(given.rows), order.index(given.tokens), given.rank)
    one, two = (constant(value) for value in list(node.inputs())[1:])
    if not isinstance(one, int) or not isinstance(two, int):
        return None
    swap = {one % given.rank: two % given.rank, two % given.rank: one % given.rank}
    return Layout(swap.get(given.rows, given.rows), swap.get(given.tokens, given.tokens), given.rank)
