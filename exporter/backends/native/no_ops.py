"""Leave out what gives its input as it is: conversions to the type that a tensor has, and slices of a whole axis.

transformers writes them for other precisions and other sizes. For a single token, each takes as long as a small
operator.
"""

from __future__ import annotations

import sys

from exporter.tracing.graphs.graph import DTypes, constant
from exporter.tracing.graphs.ir import Graph, Node
from runtime.host.torchscript import eliminate_dead_code


def leave_out_no_ops(graph: Graph, dtypes: DTypes) -> int:
    """Let the readers of such nodes read their input; returns the number of nodes."""
    found = 0
    for node in list(graph.nodes()):
        if _converts_nothing(node, dtypes) or _takes_everything(node):
            node.output().replaceAllUsesWith(node.inputsAt(0))
            found += 1
    eliminate_dead_code(graph)
    return found


def _converts_nothing(node: Node, dtypes: DTypes) -> bool:
    if node.kind() not in ("aten::to", "aten::type_as"):
        return False
    given = dtypes.get(node.inputsAt(0).debugName())
    if given is None or given != dtypes.get(node.output().debugName()):
        return False
    if node.kind() == "aten::type_as":
        return True
    # to(x, dtype, non_blocking, copy, memory_format), and none of its other forms.
    rest = [constant(each) for each in list(node.inputs())[1:]]
    return len(rest) == 4 and isinstance(rest[0], int) and rest[2] is False and rest[3] is None


def _takes_everything(node: Node) -> bool:
    if node.kind() != "aten::slice" or any(each.node().kind() != "prim::Constant" for each in list(node.inputs())[1:]):
        return False
    _, start, end, step = (constant(each) for each in list(node.inputs())[1:])
    return start in (None, 0) and end in (None, sys.maxsize) and step == 1
