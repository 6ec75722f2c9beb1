"""Rotary positions by one operator of this project: a product, two slices, their concatenation, a product and a sum.

Placed where attention is over a cache: for a single token, the calls of these operators take longer than what they
compute.
"""

from __future__ import annotations

from exporter.backends.native.attention import ATTEND_CACHED
from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

ROTATE = "em_native::rotate"
_LAST = (-1, 3)


def place_rotations(graph: Graph, sizes: Shapes) -> int:
    """Replace every `x * cos + turned(x) * sin` of the graph; returns their number."""
    if all(node.kind() != ATTEND_CACHED for node in graph.nodes()):
        return 0
    found = 0
    for node in list(graph.nodes()):
        if (parts := _rotation(node, sizes)) is not None:
            node.output().replaceAllUsesWith(insert(graph, node, ROTATE, list(parts), node))
            found += 1
    eliminate_dead_code(graph)
    return found


def _rotation(node: Node, sizes: Shapes) -> tuple[Value, Value, Value] | None:
    """The value that is turned, the cosines and the sines; None if the node is no such sum."""
    if node.kind() != "aten::add" or constant(node.inputsAt(2)) != 1:
        return None
    products = [node.inputsAt(0).node(), node.inputsAt(1).node()]
    if any(product.kind() != "aten::mul" for product in products):
        return None
    for straight, turned in (products, products[::-1]):
        for side in (0, 1):
            value = _turned(turned.inputsAt(side), sizes)
            factors = [straight.inputsAt(0), straight.inputsAt(1)]
            names = [factor.debugName() for factor in factors]
            if value is None or value.debugName() not in names:
                continue
            cosines = factors[1 - names.index(value.debugName())]
            sines = turned.inputsAt(1 - side)
            if _angles(cosines, value, sizes) and _angles(sines, value, sizes):
                return value, cosines, sines
    return None


def _turned(value: Value, sizes: Shapes) -> Value | None:
    """The tensor of which the value is the second half of the features, negated, and then the first; else None."""
    node = value.node()
    if node.kind() != "aten::cat" or constant(node.inputsAt(1)) not in _LAST:
        return None
    listed = node.inputsAt(0).node()
    if listed.kind() != "prim::ListConstruct" or listed.inputsSize() != 2:
        return None
    negated, first = listed.inputsAt(0).node(), listed.inputsAt(1).node()
    if negated.kind() != "aten::neg" or negated.inputsAt(0).node().kind() != "aten::slice":
        return None
    second = negated.inputsAt(0).node()
    if first.kind() != "aten::slice" or first.inputsAt(0).debugName() != second.inputsAt(0).debugName():
        return None
    whole = first.inputsAt(0)
    shape, half = sizes.get(whole.debugName(), ()), sizes.get(first.output().debugName(), ())
    if len(shape) != 4 or any(constant(each.inputsAt(1)) not in _LAST for each in (first, second)):
        return None
    # Widths are the model's own: what the example shows holds for every call.
    halves = half == sizes.get(second.output().debugName()) and 2 * half[3] == shape[3]
    ends = constant(first.inputsAt(2)) == 0 and (constant(second.inputsAt(3)) or 0) >= shape[3]
    steps = all(constant(each.inputsAt(4)) == 1 for each in (first, second))
    return whole if halves and ends and steps else None


def _angles(value: Value, turned: Value, sizes: Shapes) -> bool:
    """Whether there is one angle per token and feature."""
    shape, (rows, _, tokens, width) = sizes.get(value.debugName(), ()), sizes[turned.debugName()]
    return shape in ((rows, 1, tokens, width), (1, 1, tokens, width))
