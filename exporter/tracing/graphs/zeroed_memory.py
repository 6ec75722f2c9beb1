"""New memory is zeroed before a model writes to it: files may not call operators that give memory as it was.

A model that fills a tensor from `torch.empty` answers the same. A file that somebody else wrote could answer with what
the process had in that memory before, so `operators.def` has none of these operators.
"""

from __future__ import annotations

from typing import Any

from runtime.host.torchscript import ScriptModule

# The operator that takes its place, and how many of the same arguments it takes.
_ZEROED = {
    "aten::empty": ("aten::zeros", 5),
    "aten::new_empty": ("aten::new_zeros", 6),
    "aten::empty_like": ("aten::zeros_like", 6),
}


def zero_new_memory(module: ScriptModule) -> int:
    """Change the module's graph in place; the number of places."""
    graph: Any = module.graph
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
