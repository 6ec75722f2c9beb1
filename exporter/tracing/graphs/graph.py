"""What the passes over frozen TorchScript graphs have in common.

A pass leaves alone what it does not know; verification judges the file. Passes change the graph in place before its
first run, at which TorchScript optimises a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.ir import Graph, Node, Value, graph_of
from runtime.errors import TraceError
from runtime.host import torchscript
from runtime.host.torchscript import ScriptModule

# Shape by the name of a value. Names are unique in a graph.
Shapes = Mapping[str, tuple[int, ...]]
# The same of dtypes, as TorchScript numbers them.
DTypes = Mapping[str, int]
# torch.uint8, torch.float32 and torch.bfloat16 as TorchScript writes them.
UINT8, FLOAT32, BFLOAT16 = 0, 6, 15


def shapes(module: ScriptModule, example: ExampleInputs) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the graph, inputs and constants included, at the example's sizes.

    Runs a copy of the graph once; the module is left as it is.

    Raises:
        TraceError: the graph writes to tensors of the module.
    """
    inputs = zip(list(graph_of(module).inputs())[1:], example.as_tuple(), strict=True)
    known = {value.debugName(): tuple(tensor.shape) for value, tensor in inputs}
    found = _asked(module, example, "aten::size", torchscript.INTEGERS)
    return known | {name: tuple(size) for name, size in found.items()}


def dtypes(module: ScriptModule, example: ExampleInputs) -> dict[str, int]:
    """The dtype of every tensor that the graph computes, as TorchScript numbers them; otherwise as `shapes`."""
    return _asked(module, example, "prim::dtype", torchscript.INTEGER)


def _asked(module: ScriptModule, example: ExampleInputs, kind: str, answer: Any) -> dict[str, Any]:
    """What an operator of one tensor says of each tensor that a copy of the graph computes, by the tensor's name."""
    graph = graph_of(module).copy()
    answers, names = [], []
    # A copy renumbers values without names, but keeps the order of the nodes.
    for original, node in zip(list(graph_of(module).nodes()), list(graph.nodes()), strict=True):
        for value, copied in zip(original.outputs(), node.outputs(), strict=True):
            if copied.type().isSubtypeOf(torchscript.TENSOR):
                query = graph.create(kind, [copied], 1)
                query.output().setType(answer)
                query.insertAfter(node)
                answers.append(query.output())
                names.append(value.debugName())
    while list(graph.outputs()):
        graph.eraseOutput(0)
    for each in answers:
        graph.registerOutput(each)
    torchscript.inline_calls(graph)
    # The module itself, which a frozen graph needs for one thing alone.
    module_itself = next(iter(graph.inputs()))
    if module_itself.uses():
        raise TraceError(
            "the traced model changes weights or buffers of its own while it runs", "a model that only computes"
        )
    graph.eraseInput(0)
    with torch.no_grad():
        found = torchscript.run_graph(graph, example.as_tuple())
    return dict(zip(names, found, strict=True))


def constant(value: Value) -> Any:
    """The content of a constant; None if the value is not a constant, or is None."""
    return value.toIValue() if value.node().kind() == "prim::Constant" else None


def insert(graph: Graph, before: Node, kind: str, inputs: Sequence[Value], like: Node | None = None) -> Value:
    """Insert a node with one output in front of another node; returns the output."""
    node = graph.create(kind, list(inputs), 1)
    node.insertBefore(before)
    if like is not None:
        node.copyMetadata(like)
    return node.output()


def take_over(old: Value, new: Value, sizes: dict[str, tuple[int, ...]]) -> None:
    """Let the readers of a value read another one of its size, which `sizes` then has: later nodes look for it."""
    if old.debugName() in sizes:
        sizes[new.debugName()] = sizes[old.debugName()]
    old.replaceAllUsesWith(new)


def no_scalars(graph: Graph, before: Node) -> Value:
    """An empty list of the type that oneDNN's operators declare for the parameters of an activation."""
    node = graph.create("prim::ListConstruct", [], 1)
    node.insertBefore(before)
    node.output().setType(torch.ops.mkldnn._linear_pointwise.default._schema.arguments[4].type)
    return node.output()
