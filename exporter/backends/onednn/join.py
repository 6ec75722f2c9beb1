"""Join linears of the same input into one: query, key and value.

Nothing is joined whose readers could not take a part of a wider tensor.
"""

from __future__ import annotations

import torch

from exporter.tracing.graphs.graph import constant, insert
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import INTEGERS, TENSORS, eliminate_dead_code

# From [rows, tokens, heads, width] to [rows, heads, tokens, width].
_TURNS = (("aten::transpose", [1, 2]), ("aten::transpose", [2, 1]), ("aten::permute", [[0, 2, 1, 3]]))
# What may read a part of the joint output, which is not contiguous.
_READERS = ("aten::view", "aten::reshape", "aten::size")


def join_linears(graph: Graph) -> int:
    """Replace linears by one with their weights concatenated, and a slice of its output for each.

    Returns:
        The number of linears that were joined.
    """
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes():
        if node.kind() == "aten::linear" and _joinable(node):
            groups.setdefault(node.inputsAt(0).debugName(), []).append(node)
    joined = 0
    for nodes in groups.values():
        weights = [constant(node.inputsAt(1)) for node in nodes]
        if len(nodes) > 1 and len({weight.dtype for weight in weights}) == 1:
            _join(graph, nodes, weights)
            joined += len(nodes)
    eliminate_dead_code(graph)
    return joined


def _joinable(node: Node) -> bool:
    weight, bias = node.inputsAt(1), node.inputsAt(2)
    known = all(value.node().kind() == "prim::Constant" for value in (weight, bias))
    return known and all(use.user.kind() in _READERS for use in node.output().uses())


def _join(graph: Graph, nodes: list[Node], weights: list[torch.Tensor]) -> None:
    first = nodes[0]
    heads = _heads(nodes, weights)
    biases = [constant(node.inputsAt(2)) for node in nodes]
    bias = None
    if any(one is not None for one in biases):
        bias = torch.cat(
            [
                torch.zeros(len(weight), dtype=weight.dtype) if one is None else one
                for weight, one in zip(weights, biases, strict=True)
            ]
        )
    graph.setInsertPoint(first)
    arguments = [graph.insertConstant(value) for value in (torch.cat(weights), bias)]
    whole = insert(graph, first, "aten::linear", [first.inputsAt(0), *arguments], first)
    if heads is not None:
        _as_heads(graph, nodes, whole, heads)
        return
    axis, step = graph.insertConstant(-1), graph.insertConstant(1)
    start = 0
    for node, weight in zip(nodes, weights, strict=True):
        bounds = [graph.insertConstant(start), graph.insertConstant(start + len(weight))]
        part = insert(graph, first, "aten::slice", [whole, axis, *bounds, step], first)
        start += len(weight)
        for use in node.output().uses():
            _as_reshape(graph, use.user)
        node.output().replaceAllUsesWith(part)


def _heads(nodes: list[Node], weights: list[torch.Tensor]) -> list[tuple[Node, Node]] | None:
    """The view [rows, tokens, heads, width] and the transposition to [rows, heads, tokens, width] behind each linear.

    None if a linear has another reader, or they are not alike.
    """
    found = []
    for node in nodes:
        readers = [use.user for use in node.output().uses() if use.user.kind() != "aten::size"]
        if len(readers) != 1 or len(readers) != len(node.output().uses()) or len(readers[0].output().uses()) != 1:
            return None
        view, turn = readers[0], readers[0].output().uses()[0].user
        if view.inputsAt(1).node().kind() != "prim::ListConstruct" or view.inputsAt(1).node().inputsSize() != 4:
            return None
        axes = [constant(value) for value in list(turn.inputs())[1:]]
        if (turn.kind(), axes) not in _TURNS:
            return None
        found.append((view, turn))
    lists = {view.inputsAt(1).debugName() for view, _ in found}
    return found if len(lists) == 1 and len({weight.shape for weight in weights}) == 1 else None


def _as_heads(graph: Graph, nodes: list[Node], whole: Value, heads: list[tuple[Node, Node]]) -> None:
    """One view, one permutation and one unbind for all, instead of three operators for each."""
    view = heads[0][0]
    rows, tokens, *features = view.inputsAt(1).node().inputs()
    graph.setInsertPoint(view)
    parts = graph.insertConstant(len(nodes))
    sizes = insert(graph, view, "prim::ListConstruct", [rows, tokens, parts, *features])
    sizes.setType(INTEGERS)
    shaped = insert(graph, view, "aten::view", [whole, sizes], view)
    turned = insert(graph, view, "aten::permute", [shaped, graph.insertConstant([2, 0, 3, 1, 4])], view)
    listed = insert(graph, view, "aten::unbind", [turned, graph.insertConstant(0)], view)
    listed.setType(TENSORS)
    unpacked = graph.create("prim::ListUnpack", [listed], len(nodes))
    unpacked.insertBefore(view)
    for (_, turn), part in zip(heads, unpacked.outputs(), strict=True):
        turn.output().replaceAllUsesWith(part)


def _as_reshape(graph: Graph, node: Node) -> None:
    """Replace a view, which needs a certain memory layout, by reshape, which copies if it must."""
    if node.kind() == "aten::view":
        fresh = insert(graph, node, "aten::reshape", list(node.inputs()), node)
        node.output().replaceAllUsesWith(fresh)
