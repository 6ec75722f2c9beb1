"""Replace linears by oneDNN's, which do the activation or the residual addition behind them in the same pass.

In: a frozen module's graph and its tensors' shapes. Out: what was fused, by kind. Refuses nothing; every linear
with a weight of the graph's own becomes oneDNN's, with or without something fused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from exporter.graphs import Shapes, constant, insert
from runtime.torchscript import eliminate_dead_code

# Activation → oneDNN's name, as `mkldnn::_linear_pointwise` takes it.
ACTIVATIONS = {
    "aten::gelu": "gelu",
    "aten::relu": "relu",
    "aten::silu": "swish",
    "aten::tanh": "tanh",
    "aten::sigmoid": "sigmoid",
}
LINEAR = "mkldnn::_linear_pointwise"


def fuse_linears(graph: Any, sizes: Shapes) -> Counter[str]:
    """Rewrite every linear whose weight is a constant.

    Returns:
        How often each kind of linear was placed.
    """
    found: Counter[str] = Counter()
    known = dict(sizes)
    for node in list(graph.nodes()):
        if node.kind() != "aten::linear" or constant(node.inputsAt(1)) is None:
            continue
        value, weight, bias = node.inputs()
        reader = _only_reader(node)
        other = _residual(node, reader, known)
        if reader is not None and reader.kind() in ACTIVATIONS:
            kind, replaced = f"linear+{reader.kind().removeprefix('aten::')}", reader
            arguments = [value, weight, bias, *_activation(graph, reader)]
        elif other is not None:
            kind, replaced = "linear+add", reader
            arguments = [value, other, weight, bias, _constant(graph, reader, "add")]
        else:
            kind, replaced = "linear", node
            nothing = [_constant(graph, node, "none"), _no_scalars(graph, node), _constant(graph, node, None)]
            arguments = [value, weight, bias, *nothing]
        fused = insert(graph, replaced, LINEAR, arguments, node)
        if replaced.output().debugName() in known:
            known[fused.debugName()] = known[replaced.output().debugName()]
        replaced.output().replaceAllUsesWith(fused)
        found[kind] += 1
    eliminate_dead_code(graph)
    return found


def _only_reader(node: Any) -> Any:
    uses = node.output().uses()
    return uses[0].user if len(uses) == 1 else None


def _activation(graph: Any, reader: Any) -> list[Any]:
    """Its name, its numbers, its algorithm."""
    name = ACTIVATIONS[reader.kind()]
    # Whether gelu is exact or by tanh.
    algorithm = constant(reader.inputsAt(1)) if name == "gelu" else None
    return [_constant(graph, reader, name), _no_scalars(graph, reader), _constant(graph, reader, algorithm)]


def _residual(node: Any, reader: Any, sizes: Shapes) -> Any:
    """What is added to the linear's answer, where it has the same shape; else None."""
    if reader is None or reader.kind() != "aten::add" or constant(reader.inputsAt(2)) != 1:
        return None
    both = [reader.inputsAt(0), reader.inputsAt(1)]
    names = [value.debugName() for value in both]
    if names[0] == names[1]:
        return None
    other = both[1] if names[0] == node.output().debugName() else both[0]
    shapes = [sizes.get(name) for name in names]
    return other if shapes[0] is not None and shapes[0] == shapes[1] else None


def _constant(graph: Any, before: Any, value: Any) -> Any:
    graph.setInsertPoint(before)
    return graph.insertConstant(value)


def _no_scalars(graph: Any, before: Any) -> Any:
    """An empty list of the type that the operator declares."""
    node = graph.create("prim::ListConstruct", [], 1)
    node.insertBefore(before)
    node.output().setType(torch.ops.mkldnn._linear_pointwise.default._schema.arguments[4].type)
    return node.output()
