"""Fold the scale of attention scores into the weights of the query, which saves a pass over the scores.

Only exactly `matmul(query, keys) * scale + mask`, with the query from a linear of its own, is changed, and only if the
result is exact: multiplying by a power of two, as for heads of 16, 64 or 256 features, changes only exponents.
"""

from __future__ import annotations

import math

from exporter.tracing.graphs.graph import constant
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

# Operators that may be between the query's linear and the product: they move numbers without changing them.
_MOVES = ("aten::view", "aten::reshape", "aten::transpose", "aten::permute", "aten::contiguous")


def simplify_attention(graph: Graph) -> int:
    """Fold the scale of the scores into the query's weights.

    Returns:
        The number of attentions.
    """
    found = 0
    for node in list(graph.nodes()):
        scale = _power_of_two(node)
        if scale is None:
            continue
        linear = _query(node.inputsAt(0))
        if linear is None:
            continue
        graph.setInsertPoint(linear)
        for position in (1, 2):
            value = constant(linear.inputsAt(position))
            if value is not None:
                linear.replaceInput(position, graph.insertConstant(value * scale))
        node.output().replaceAllUsesWith(node.inputsAt(0))
        found += 1
    eliminate_dead_code(graph)
    return found


def _power_of_two(node: Node) -> float | None:
    """The factor of a product or quotient with a number, if it is a power of two; else None."""
    if node.kind() not in ("aten::mul", "aten::div"):
        return None
    number = constant(node.inputsAt(1))
    if not isinstance(number, (int, float)) or number <= 0:
        return None
    factor = float(number) if node.kind() == "aten::mul" else 1.0 / number
    return factor if math.frexp(factor)[0] == 0.5 else None


def _query(scores: Value) -> Node | None:
    """The linear whose output is the first factor of a product that nothing else reads; else None."""
    product = scores.node()
    if product.kind() != "aten::matmul" or len(scores.uses()) != 1:
        return None
    value = product.inputsAt(0)
    while value.node().kind() in _MOVES and _single(value):
        value = value.node().inputsAt(0)
    linear = value.node()
    fits = linear.kind() == "aten::linear" and _single(value) and constant(linear.inputsAt(1)) is not None
    return linear if fits and linear.inputsAt(2).node().kind() == "prim::Constant" else None


def _single(value: Value) -> bool:
    """Whether only one reader depends on the numbers."""
    readers: list[str] = [use.user.kind() for use in value.uses()]
    return sum(reader != "aten::size" for reader in readers) == 1
