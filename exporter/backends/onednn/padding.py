"""Skip padding: between the embeddings and the head, only real tokens are computed.

The region begins at the linears for query, key and value of a first attention, and reaches as far as nodes keep tokens
apart (exporter/backends/onednn/region.py). What enters it is packed into one row of real tokens, what leaves it is put
back into its positions, and attention is computed row by row (exporter/backends/onednn/ragged.py). In a batch without
padding these steps do nothing: one graph, with one copy of the weights, serves both. A graph without an attention that
can be followed stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from exporter.backends.onednn import ragged
from exporter.backends.onednn.attend import FEW, MANY_BYTES, Attention
from exporter.backends.onednn.layout import VIEWS, Layout
from exporter.backends.onednn.region import OutsideUse, Region, find_region, uses_outside
from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.graph_functions import call
from exporter.tracing.graphs.ir import Graph, Node, Value, graph_of
from runtime.host import torchscript
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

# Places the attention in front of a node, and returns its output. Takes the module, the node, the attention's parts,
# what `ragged.plan_padding` returns for the attention mask, and that mask.
PlaceAttention = Callable[[ScriptModule, Node, Attention, Value, Value, Value, Value], Value]


def place_ragged(
    module: ScriptModule, node: Node, parts: Attention, kept: Value, back: Value, lengths: Value, real: Value
) -> Value:
    """Attention by PyTorch's own operators."""
    query, keys, values, mask, scale, *_ = parts
    assert mask is not None  # the region has no others
    settings = map(graph_of(module).insertConstant, (scale, FEW, MANY_BYTES, ragged.SHORT))
    arguments = [query, keys, values, mask, *settings, kept, back, lengths, real]
    return call(module, node, ragged.attend_ragged, arguments)


def leave_out_padding(module: ScriptModule, mask: Value, sizes: Shapes, place: PlaceAttention = place_ragged) -> int:
    """Rewrite the graph.

    Args:
        module: frozen.
        mask: the input of its graph that marks real tokens, [rows, tokens].
        sizes: of its tensors; those of the rewritten graph differ.
        place: how each attention is placed.

    Returns:
        The number of attentions.
    """
    batch = sizes.get(mask.debugName(), ())
    nodes = list(graph_of(module).nodes())
    if len(batch) != 2:
        return 0
    region = find_region(nodes, sizes, batch)
    if not any(name in region.attentions for name in region.nodes):
        return 0
    # An operator that changes its argument in place would change a copy.
    if any(_in_place(node) and node.inputsAt(0).debugName() in region.known for node in nodes):
        return 0
    placed = _rewrite(module, mask, region, uses_outside(region), place)
    eliminate_dead_code(graph_of(module))
    return placed


def _rewrite(module: ScriptModule, mask: Value, region: Region, uses: list[OutsideUse], place: PlaceAttention) -> int:
    graph = graph_of(module)
    views = [
        (node, region.layouts[node.inputsAt(0).debugName()], region.layouts[name])
        for name, node in region.nodes.items()
        if node.kind() in VIEWS
    ]
    entries = [
        (node, at, node.inputsAt(at), (node.inputsAt(at).debugName(), layout)) for node, at, layout in region.entries
    ]
    kept, back, lengths = _plan(module, mask)
    entered: dict[tuple[str, Layout], Value] = {}
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
            graph.setInsertPoint(node)
            output = place(module, node, region.attentions[name], kept, back, lengths, mask)
            placed.append((node.output(), output))
    _leave(module, mask, back, uses)
    for old, new in placed:
        old.replaceAllUsesWith(new)
    return len(placed)


def _plan(module: ScriptModule, mask: Value) -> tuple[Value, Value, Value]:
    """Call `ragged.plan_padding` at the start of the graph; returns its three results."""
    graph = graph_of(module)
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


def _resize(graph: Graph, node: Node, before: Layout, after: Layout) -> None:
    """Let a view take the numbers of rows and tokens from the tensor that it views."""
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


def _leave(module: ScriptModule, mask: Value, back: Value, uses: list[OutsideUse]) -> None:
    """Give readers outside all positions; readers of a size or of one position get just these."""
    graph = graph_of(module)
    left: dict[str, Value] = {}
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


def _index(select: Node) -> int | None:
    """The position of each row that a node picks; None if it does not pick one."""
    axis, index = (constant(value) for value in list(select.inputs())[1:])
    return index if axis == 1 and isinstance(index, int) else None


def _in_place(node: Node) -> bool:
    return node.kind().endswith("_") and not node.kind().endswith("__")
