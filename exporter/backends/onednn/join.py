"""Join linears of the same input into one: query, key and value.

In: a frozen module's graph. Out: how many linears were joined. Refuses nothing, and joins nothing whose
readers could not take a part of a wider tensor.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.graphs import constant, insert
from runtime.torchscript import eliminate_dead_code

# What may read a part of the joint answer: its features lie apart from row to row, which these do not mind.
_READERS = ("aten::view", "aten::reshape", "aten::size")


def join_linears(graph: Any) -> int:
    """One linear with the weights of several below each other, and a slice of its answer for each.

    Returns:
        The number of linears that were joined.
    """
    groups: dict[str, list[Any]] = {}
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


def _joinable(node: Any) -> bool:
    weight, bias = node.inputsAt(1), node.inputsAt(2)
    known = all(value.node().kind() == "prim::Constant" for value in (weight, bias))
    return known and all(use.user.kind() in _READERS for use in node.output().uses())


def _join(graph: Any, nodes: list[Any], weights: list[torch.Tensor]) -> None:
    first = nodes[0]
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
    axis, step = graph.insertConstant(-1), graph.insertConstant(1)
    start = 0
    for node, weight in zip(nodes, weights, strict=True):
        bounds = [graph.insertConstant(start), graph.insertConstant(start + len(weight))]
        part = insert(graph, first, "aten::slice", [whole, axis, *bounds, step], first)
        start += len(weight)
        for use in node.output().uses():
            _as_reshape(graph, use.user)
        node.output().replaceAllUsesWith(part)


def _as_reshape(graph: Any, node: Any) -> None:
    """A view demands a layout; reshape takes one where it can and copies where it must."""
    if node.kind() == "aten::view":
        fresh = insert(graph, node, "aten::reshape", list(node.inputs()), node)
        node.output().replaceAllUsesWith(fresh)
