"""Rewriting of frozen TorchScript graphs: what is common to the passes.

In: a frozen module, whose forward is one graph with its weights as constants. Out: small values and operations on its
nodes. Refuses nothing: a pass leaves alone whatever it does not know, and the gate judges the file.

Passes change the graph in place, before its first run: TorchScript optimises a copy at that run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from exporter.shapes.example_inputs import ExampleInputs
from runtime.host import torchscript
from runtime.host.torchscript import ScriptModule

# Shape by the name of a value. Names are unique in a graph.
Shapes = Mapping[str, tuple[int, ...]]


def shapes(module: ScriptModule, example: ExampleInputs) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the graph, inputs and constants included, at the example's sizes.

    Runs a copy of the graph once; the module is left as it is.
    """
    inputs = zip(list(module.graph.inputs())[1:], example.as_tuple(), strict=True)
    known = {value.debugName(): tuple(tensor.shape) for value, tensor in inputs}
    graph = module.graph.copy()
    answers, names = [], []
    # A copy numbers the values without names anew, but keeps the order of the nodes.
    for original, node in zip(list(module.graph.nodes()), list(graph.nodes()), strict=True):
        for value, twin in zip(original.outputs(), node.outputs(), strict=True):
            if twin.type().isSubtypeOf(torchscript.TENSOR):
                asked = graph.create("aten::size", [twin], 1)
                asked.output().setType(torchscript.INTEGERS)
                asked.insertAfter(node)
                answers.append(asked.output())
                names.append(value.debugName())
    while list(graph.outputs()):
        graph.eraseOutput(0)
    for answer in answers:
        graph.registerOutput(answer)
    torchscript.inline_calls(graph)
    # The module itself, of which a frozen graph holds everything else.
    graph.eraseInput(0)
    with torch.no_grad():
        found = torchscript.run_graph(graph, example.as_tuple())
    return known | {name: tuple(size) for name, size in zip(names, found, strict=True)}


def constant(value: Any) -> Any:
    """What a value of the graph holds; None where it is no constant, or None itself."""
    return value.toIValue() if value.node().kind() == "prim::Constant" else None


def insert(graph: Any, before: Any, kind: str, inputs: Sequence[Any], like: Any = None) -> Any:
    """A new node with one tensor as its output, in front of another node; returns the output."""
    node = graph.create(kind, list(inputs), 1)
    node.insertBefore(before)
    if like is not None:
        node.copyMetadata(like)
    return node.output()


def no_scalars(graph: Any, before: Any) -> Any:
    """An empty list of the type that oneDNN's operators declare for an activation's numbers."""
    node = graph.create("prim::ListConstruct", [], 1)
    node.insertBefore(before)
    node.output().setType(torch.ops.mkldnn._linear_pointwise.default._schema.arguments[4].type)
    return node.output()
