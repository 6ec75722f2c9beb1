"""Gated feed-forward layers: one linear for both halves, and one operator for activation(gate) * up.

For a single token, the calls of the operators that this replaces take longer than what they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from exporter.backends.native.linears import activation_name
from exporter.backends.native.places import places, shared_source
from exporter.backends.onednn.fuse import ACTIVATIONS
from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

GATED = "em_native::gated"


def place_gates(graph: Graph, sizes: Shapes, may_join: Callable[[Sequence[torch.Tensor]], bool]) -> int:
    """Replace every product of an activated half and another half; returns their number.

    Before the linears, which would take the activation. The halves are parts of one tensor already, or come from two
    linears of the same input, which are joined.

    Args:
        graph: of a frozen module.
        sizes: of its tensors.
        may_join: whether these weights, concatenated, can be one linear's.
    """
    found = 0
    for node in list(graph.nodes()):
        if node.kind() != "aten::mul":
            continue
        for gate, up in ((0, 1), (1, 0)):
            if _place(graph, node, node.inputsAt(gate), node.inputsAt(up), sizes, may_join):
                found += 1
                break
    eliminate_dead_code(graph)
    return found


def _place(
    graph: Graph,
    node: Node,
    gate: Value,
    up: Value,
    sizes: Shapes,
    may_join: Callable[[Sequence[torch.Tensor]], bool],
) -> bool:
    activation = gate.node()
    if activation.kind() not in ACTIVATIONS or len(gate.uses()) != 1:
        return False
    halves = [activation.inputsAt(0), up]
    shapes = [sizes.get(each.debugName()) for each in halves]
    if not shapes[0] or shapes[0] != shapes[1] or any(len(each.uses()) != 1 for each in halves):
        return False
    whole = _split(halves, shapes[0], sizes) or _join(graph, halves, may_join)
    if whole is None:
        return False
    algorithm = constant(activation.inputsAt(1)) if activation.kind() == "aten::gelu" else None
    graph.setInsertPoint(node)
    name = graph.insertConstant(activation_name(ACTIVATIONS[activation.kind()], algorithm))
    node.output().replaceAllUsesWith(insert(graph, node, GATED, [whole, name], node))
    return True


def _split(halves: list[Value], half: tuple[int, ...], sizes: Shapes) -> Value | None:
    """The tensor of which these are the first and the second half of the features; None if they are not."""
    whole = shared_source(halves, len(half), sizes)
    if whole is None or sizes[whole.debugName()] != (*half[:-1], 2 * half[-1]):
        return None
    numbers = torch.arange(2 * torch.Size(half).numel()).view(sizes[whole.debugName()])
    for value, part in zip(halves, numbers.chunk(2, -1), strict=True):
        found = places(value, whole, numbers, sizes)
        if found is None or not torch.equal(found, part):
            return None
    return whole


def _join(graph: Graph, halves: list[Value], may_join: Callable[[Sequence[torch.Tensor]], bool]) -> Value | None:
    """One linear in place of the two that give the halves; None if these are no two linears of one input."""
    linears = [each.node() for each in halves]
    if any(linear.kind() != "aten::linear" for linear in linears):
        return None
    if linears[0].inputsAt(0).debugName() != linears[1].inputsAt(0).debugName():
        return None
    if any(given.node().kind() != "prim::Constant" for linear in linears for given in list(linear.inputs())[1:]):
        return None
    weights, biases = ([constant(linear.inputsAt(place)) for linear in linears] for place in (1, 2))
    if weights[0].dtype != weights[1].dtype or (biases[0] is None) != (biases[1] is None) or not may_join(weights):
        return None
    first = linears[0] if linears[0].isBefore(linears[1]) else linears[1]
    graph.setInsertPoint(first)
    numbers = (torch.cat(weights), None if biases[0] is None else torch.cat(biases))
    arguments = [linears[0].inputsAt(0), *map(graph.insertConstant, numbers)]
    return insert(graph, first, "aten::linear", arguments, first)
