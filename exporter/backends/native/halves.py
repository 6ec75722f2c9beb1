"""In an int8 file: between the linears, bf16 where nothing else would see it.

What a linear in int8 gives to the next one becomes codes of 8 bits at once, and queries, keys and values may be rounded
(`attention.py`). In bf16 they are half as many bytes, and writing and reading them is what these linears wait for.
Sums that go on from layer to layer, and all that leaves the linears in another way, stay in fp32.
"""

from __future__ import annotations

from exporter.backends.native.gated import GATED
from exporter.tracing.graphs.graph_functions import PREFIX
from exporter.tracing.graphs.ir import Graph, Node, Value

# Operators that keep numbers and change their order, or give numbers of the type of their first input.
_SHAPES = (GATED, "aten::view", "aten::reshape", "aten::permute", "aten::transpose", "aten::contiguous")
_LINEAR = PREFIX + "native_linear_int8"
_ATTENTION = (PREFIX + "native_attend", PREFIX + "native_attend_ragged")
# Positions in the call of the linear, behind the module itself, and those of the attention.
_X, _SCALES, _RESIDUAL, _HALF = 1, 2, 6, 9
_QUERY_KEYS_VALUES = (1, 2, 3)


def halve_between_linears(graph: Graph) -> int:
    """Let linears in int8 give bf16 where only linears in int8 and attention read it; returns their number."""
    found = [
        node
        for node in graph.nodes()
        # What is added has the type of the sum.
        if _called(node) == _LINEAR and _is_none(node.inputsAt(_RESIDUAL)) and _may_be_half(node.output(), node)
    ]
    for node in found:
        graph.setInsertPoint(node)
        node.replaceInput(_HALF, graph.insertConstant(True))
    return len(found)


def _called(node: Node) -> str:
    return node.s("name") if node.kind() == "prim::CallMethod" else ""


def _may_be_half(value: Value, linear: Node) -> bool:
    """Whether all that reads the value, which the linear gives, takes bf16."""
    return all(_takes_half(use.user, use.offset, linear) for use in value.uses())


def _takes_half(node: Node, position: int, linear: Node) -> bool:
    if node.kind() == "aten::size":
        return True
    if node.kind() in _SHAPES or node.kind() in ("aten::unbind", "prim::ListUnpack"):
        return position == 0 and all(_may_be_half(output, linear) for output in node.outputs())
    if _called(node) == _LINEAR:
        return position == _X and _is_none(node.inputsAt(_SCALES))
    if _called(node) in _ATTENTION and position in _QUERY_KEYS_VALUES:
        # All three have one type.
        givers = [_giver(node.inputsAt(place)) for place in _QUERY_KEYS_VALUES]
        return all(_is(giver, linear) for giver in givers) and _may_be_half(node.output(), linear)
    return False


def _is_none(value: Value) -> bool:
    return value.node().kind() == "prim::Constant" and value.toIValue() is None


def _is(node: Node, other: Node) -> bool:
    """Whether these are one node: PyTorch makes a new object for each look at one."""
    return _called(node) == _called(other) and node.output().debugName() == other.output().debugName()


def _giver(value: Value) -> Node:
    """The node that computed the value, before its order was changed."""
    node = value.node()
    while node.kind() in _SHAPES or node.kind() in ("aten::unbind", "prim::ListUnpack"):
        node = node.inputsAt(0).node()
    return node
