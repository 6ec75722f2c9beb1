"""Leave padding out: between the embeddings and the head, work is done on real tokens alone.

In: a frozen module, its attention mask, the example's shapes. Out: how many attentions now work without
padding. Refuses nothing, and leaves alone a graph without an attention that it can follow.

The region begins at the linears of query, key and value of a first attention, and reaches as far as nodes keep tokens
apart (exporter/backends/onednn/region.py). What enters it is brought into one row of real tokens, what leaves it gets
its places back, and attention goes row by row, as exporter/backends/onednn/ragged.py does it. In a batch without
padding these three do nothing: one graph serves both, with one copy of the weights.
"""

from __future__ import annotations

from typing import Any

from exporter.backends.onednn import ragged
from exporter.backends.onednn.attend import FEW, MANY_BYTES
from exporter.backends.onednn.layout import VIEWS, Layout
from exporter.backends.onednn.region import Region, Use, find_region, uses_outside
from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.graph_functions import call
from runtime.host import torchscript
from runtime.host.torchscript import ScriptModule, eliminate_dead_code


def leave_out_padding(module: ScriptModule, mask: Any, sizes: Shapes) -> int:
    """Rewrite the graph.

    Args:
        module: frozen.
        mask: the input of its graph that says which tokens are real, [rows, tokens].
        sizes: of its tensors; they are no longer those of the rewritten graph.

    Returns:
        The number of attentions.
    """
    batch = sizes.get(mask.debugName(), ())
    nodes = list(module.graph.nodes())
    if len(batch) != 2:
        return 0
    region = find_region(nodes, sizes, batch)
    if not any(name in region.attentions for name in region.nodes):
        return 0
    # An operator that changes its argument would change a copy.
    if any(_in_place(node) and node.inputsAt(0).debugName() in region.known for node in nodes):
        return 0
    placed = _rewrite(module, mask, region, uses_outside(region))
    eliminate_dead_code(module.graph)
    return placed


def _rewrite(module: ScriptModule, mask: Any, region: Region, uses: list[Use]) -> int:
    graph: Any = module.graph
    views = [
        (node, region.layouts[node.inputsAt(0).debugName()], region.layouts[name])
        for name, node in region.nodes.items()
        if node.kind() in VIEWS
    ]
    entries = [
        (node, at, node.inputsAt(at), (node.inputsAt(at).debugName(), layout)) for node, at, layout in region.entries
    ]
    kept, back, lengths = _plan(module, mask)
    entered: dict[tuple[str, Layout], Any] = {}
    for node, position, value, key in entries:
        if key not in entered:
            graph.setInsertPoint(node)
            axes = map(graph.insertConstant, key[1][:2])
            entered[key] = call(module, node, ragged.gather_tokens, [value, kept, mask, *axes])
        node.replaceInput(position, entered[key])
    for node, before, after in views:
        _resize(graph, node, before, after)
    placed = []
    for name, node in region.nodes.items():
        if name in region.attentions:
            query, keys, values, hides, scale, _ = region.attentions[name]
            graph.setInsertPoint(node)
            settings = map(graph.insertConstant, (scale, FEW, MANY_BYTES, ragged.SHORT))
            given = [query, keys, values, hides, *settings, kept, back, lengths, mask]
            answer = call(module, node, ragged.attend_ragged, given)
            placed.append((node.output(), answer))
    _leave(module, mask, back, uses)
    for old, new in placed:
        old.replaceAllUsesWith(new)
    return len(placed)


def _plan(module: ScriptModule, mask: Any) -> tuple[Any, Any, Any]:
    """What `ragged.plan_padding` gives for the mask, at the head of the graph."""
    graph: Any = module.graph
    first = next(iter(graph.nodes()))
    graph.setInsertPoint(first)
    numbers = map(graph.insertConstant, (ragged.FULL, ragged.LEAST, ragged.STEP))
    kinds = torchscript.tuple_of(torchscript.TENSOR, torchscript.TENSOR, torchscript.INTEGERS)
    found = call(module, first, ragged.plan_padding, [mask, *numbers], kinds)
    parts = graph.create("prim::TupleUnpack", [found], 3)
    parts.insertAfter(found.node())
    kept, back, lengths = parts.outputs()
    for output, kind in ((kept, torchscript.TENSOR), (back, torchscript.TENSOR), (lengths, torchscript.INTEGERS)):
        output.setType(kind)
    return kept, back, lengths


def _resize(graph: Any, node: Any, before: Layout, after: Layout) -> None:
    """Rows and tokens are as many as the tensor has that is viewed."""
    sizes = list(node.inputsAt(1).node().inputs())
    graph.setInsertPoint(node)
    for source, target in zip(before[:2], after[:2], strict=True):
        size = insert(graph, node, "aten::size", [node.inputsAt(0), graph.insertConstant(source)])
        size.setType(torchscript.INTEGER)
        sizes[target] = size
    fresh = graph.create("prim::ListConstruct", sizes, 1)
    fresh.insertBefore(node)
    fresh.output().setType(torchscript.INTEGERS)
    node.replaceInput(1, fresh.output())


def _leave(module: ScriptModule, mask: Any, back: Any, uses: list[Use]) -> None:
    """Give all places back to the readers outside; those that ask for sizes or one place get these."""
    graph: Any = module.graph
    left: dict[str, Any] = {}
    for use in uses:
        layout, reader = use.layout, use.reader
        graph.setInsertPoint(reader)
        if reader.kind() == "aten::size" and reader.inputsSize() == 2 and constant(reader.inputsAt(1)) is not None:
            axis = constant(reader.inputsAt(1)) % layout.rank
            if axis in layout[:2]:
                reader.replaceInput(0, mask)
                reader.replaceInput(1, graph.insertConstant(layout[:2].index(axis)))
        elif reader.kind() == "aten::select" and layout[:2] == (0, 1) and _index(reader) is not None:
            place = graph.insertConstant(_index(reader))
            one = call(module, reader, ragged.gather_position, [use.value, back, mask, place])
            reader.output().replaceAllUsesWith(one)
        else:
            if use.name not in left:
                axes = [graph.insertConstant(layout.rows), graph.insertConstant(layout.tokens)]
                left[use.name] = call(module, reader, ragged.scatter_tokens, [use.value, back, mask, *axes])
            reader.replaceInput(use.position, left[use.name])


def _index(select: Any) -> int | None:
    """Which place of each row a node picks; None if it is not one."""
    axis, index = (constant(value) for value in list(select.inputs())[1:])
    return index if axis == 1 and isinstance(index, int) else None


def _in_place(node: Any) -> bool:
    kind: str = node.kind()
    return kind.endswith("_") and not kind.endswith("__")
