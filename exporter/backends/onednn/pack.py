"""Keep the linears' weights where the method `prepare` can reorder them for the processor.

oneDNN reorders a weight into blocks that suit the processor. Doing that at every call costs as much as a small batch. A
reordered weight cannot be saved, and would suit one processor only. So the file holds the weights as they are, and
`prepare`, called once after loading, replaces each by its reordered copy: one copy in the file, one in memory. A
program that does not call it gets the same outputs more slowly; with weights in int8 it gets an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from exporter.backends.onednn import int8
from exporter.backends.onednn.fuse import LINEAR
from exporter.tracing.graphs.graph import constant, insert
from exporter.tracing.graphs.ir import Node, graph_of
from runtime.host.torchscript import TENSORS, ScriptModule, define, eliminate_dead_code

_PREPARE = """
def prepare(self) -> None:
    for i in range(len(self.weights)):
        weight = self.weights[i]
        if weight.is_mkldnn:
            pass
        elif weight.dtype == torch.int8:
            self.weights[i] = torch.ops.onednn.qlinear_prepack(weight, None)
        else:
            self.weights[i] = torch.ops.mkldnn._reorder_linear_weight(weight, None)
"""


def pack(module: ScriptModule) -> None:
    """Move the weights from the graph's constants to an attribute, and define `prepare`."""
    linears = [node for node in graph_of(module).nodes() if node.kind() in (LINEAR, int8.LINEAR)]
    move_weights(module, [(node, _weight_position(node)) for node in linears], _PREPARE)


def move_weights(module: ScriptModule, readers: Sequence[tuple[Node, int]], prepare: str) -> None:
    """Move constants of the graph to the attribute `weights`, a list of tensors, and define the method `prepare`.

    Args:
        module: frozen.
        readers: nodes, and which of their inputs is such a constant.
        prepare: the method's source; it replaces the members of `self.weights`.
    """
    graph = graph_of(module)
    weights: dict[str, torch.Tensor] = {}
    for node, position in readers:
        value = node.inputsAt(position)
        weights.setdefault(value.debugName(), constant(value))
    module._c._register_attribute("weights", TENSORS, list(weights.values()))
    owner = next(iter(graph.inputs()))
    first = next(iter(graph.nodes()))
    whole = insert(graph, first, "prim::GetAttr", [owner])
    whole.node().s_("name", "weights")
    whole.setType(TENSORS)
    numbers = {name: number for number, name in enumerate(weights)}
    for node, position in readers:
        graph.setInsertPoint(node)
        number = graph.insertConstant(numbers[node.inputsAt(position).debugName()])
        node.replaceInput(position, insert(graph, node, "aten::__getitem__", [whole, number]))
    eliminate_dead_code(graph)
    define(module, prepare)


def _weight_position(node: Node) -> int:
    """`(X, W, …)`, or with an addition `(X, other, W, …)`; in int8 after the input's scale and zero point."""
    if node.kind() == int8.LINEAR:
        return 3
    return 2 if node.inputsSize() == 5 else 1
