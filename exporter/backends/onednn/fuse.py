"""Replace linears by oneDNN's, which compute a following activation or residual addition in the same pass.

Every linear with a constant weight becomes oneDNN's, whether something is fused with it or not. It is in int8 if its
input is quantised (exporter/backends/onednn/int8.py).
"""

from __future__ import annotations

from collections import Counter

from exporter.backends.onednn import int8
from exporter.backends.onednn.fused_linear import Fused
from exporter.tracing.graphs.graph import Shapes, constant, insert, no_scalars, take_over
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

# Activation → oneDNN's name, as `mkldnn::_linear_pointwise` takes it.
ACTIVATIONS = {
    "aten::gelu": "gelu",
    "aten::relu": "relu",
    "aten::silu": "swish",
    "aten::tanh": "tanh",
    "aten::sigmoid": "sigmoid",
}
LINEAR = "mkldnn::_linear_pointwise"


def fuse_linears(graph: Graph, sizes: Shapes) -> Counter[str]:
    """Rewrite every linear whose weight is a constant.

    Returns:
        How often each kind of linear was placed.
    """
    found: Counter[str] = Counter()
    known = dict(sizes)
    codes = int8.Codes(graph)
    for node in list(graph.nodes()):
        if node.kind() != "aten::linear" or constant(node.inputsAt(1)) is None:
            continue
        fused = find_fused(node, known)
        replacement = codes.place(fused) if int8.takes_codes(node) else _place(graph, fused)
        take_over(fused.last.output(), replacement, known)
        found[fused.kind + (" in int8" if int8.takes_codes(node) else "")] += 1
    eliminate_dead_code(graph)
    return found


def find_fused(node: Node, known: Shapes) -> Fused:
    """A linear with the activation or addition that alone reads its output, if there is one."""
    uses = node.output().uses()
    reader = uses[0].user if len(uses) == 1 else None
    if reader is not None and reader.kind() in ACTIVATIONS:
        name = ACTIVATIONS[reader.kind()]
        return Fused(node, reader, None, name, constant(reader.inputsAt(1)) if name == "gelu" else None)
    added = _residual(node, reader, known)
    return Fused(node, node) if reader is None or added is None else Fused(node, reader, added)


def _residual(node: Node, reader: Node | None, known: Shapes) -> Value | None:
    """What is added to the linear's output, if it has the same shape; else None."""
    if reader is None or reader.kind() != "aten::add" or constant(reader.inputsAt(2)) != 1:
        return None
    summands = [reader.inputsAt(0), reader.inputsAt(1)]
    names = [value.debugName() for value in summands]
    if names[0] == names[1]:
        return None
    other = summands[1] if names[0] == node.output().debugName() else summands[0]
    shapes = [known.get(name) for name in names]
    return other if shapes[0] is not None and shapes[0] == shapes[1] else None


def _place(graph: Graph, fused: Fused) -> Value:
    value, weight, bias = fused.linear.inputs()
    graph.setInsertPoint(fused.last)
    if fused.added is not None:
        arguments = [value, fused.added, weight, bias, graph.insertConstant("add")]
    else:
        what = [graph.insertConstant(fused.activation), no_scalars(graph, fused.last)]
        arguments = [value, weight, bias, *what, graph.insertConstant(fused.algorithm)]
    return insert(graph, fused.last, LINEAR, arguments, fused.linear)
