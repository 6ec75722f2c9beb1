"""Layer norm, with the addition in front of it, by one operator of this project."""

from __future__ import annotations

from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

NORM = "em_native::add_layer_norm"


def place_native_norms(graph: Graph, sizes: Shapes) -> int:
    """Replace every layer norm over the last axis; returns their number."""
    found = 0
    for node in list(graph.nodes()):
        if node.kind() != "aten::layer_norm":
            continue
        value, size, weight, bias, epsilon, _ = node.inputs()
        number = constant(epsilon)
        if len(constant(size) or ()) != 1 or not isinstance(number, float):
            continue
        value, residual = _summands(value, sizes)
        graph.setInsertPoint(node)
        added = graph.insertConstant(None) if residual is None else residual
        output = insert(graph, node, NORM, [value, added, weight, bias, epsilon], node)
        node.output().replaceAllUsesWith(output)
        found += 1
    eliminate_dead_code(graph)
    return found


def _summands(value: Value, sizes: Shapes) -> tuple[Value, Value | None]:
    """The two tensors whose sum the value is, if nothing else reads it and both have its shape."""
    node: Node = value.node()
    if node.kind() != "aten::add" or len(value.uses()) != 1 or constant(node.inputsAt(2)) != 1:
        return value, None
    one, other = node.inputsAt(0), node.inputsAt(1)
    shapes = [sizes.get(each.debugName()) for each in (one, other, value)]
    if shapes[0] is None or len(set(shapes)) != 1:
        return value, None
    return one, other
