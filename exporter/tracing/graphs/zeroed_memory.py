"""Zero new memory before a model writes to it: files must not call operators that give uninitialised memory.

A model that fills a tensor from `torch.empty` gives the same outputs. But a file that somebody else wrote could return
what the process had in that memory before, so `operators.def` has none of these operators.
"""

from __future__ import annotations

from exporter.tracing.graphs.ir import graph_of
from runtime.host.torchscript import ScriptModule

# Operator → its replacement, and how many of the same arguments that takes.
_ZEROED = {
    "aten::empty": ("aten::zeros", 5),
    "aten::new_empty": ("aten::new_zeros", 6),
    "aten::empty_like": ("aten::zeros_like", 6),
}


def zero_new_memory(module: ScriptModule) -> int:
    """Change the module's graph in place; returns the number of replaced operators."""
    graph = graph_of(module)
    blocks, found = [graph], []
    while blocks:
        for node in blocks.pop().nodes():
            blocks.extend(node.blocks())
            if node.kind() in _ZEROED:
                found.append(node)
    for node in found:
        kind, count = _ZEROED[node.kind()]
        made = graph.create(kind, list(node.inputs())[:count], 1)
        made.insertBefore(node)
        made.copyMetadata(node)
        made.output().copyMetadata(node.output())
        node.output().replaceAllUsesWith(made.output())
        node.destroy()
    return len(found)
