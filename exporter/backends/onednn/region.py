"""Find the part of a graph that can be computed for real tokens only.

It begins at the linears of a first attention and reaches as far as nodes keep tokens apart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from exporter.backends.onednn.attend import Attention, attention
from exporter.backends.onednn.int8 import QUANTISE, takes_codes
from exporter.backends.onednn.layout import BINARY, TOKENS, Layout, layout_of
from exporter.tracing.graphs.graph import Shapes, constant
from exporter.tracing.graphs.ir import Node, Value
from runtime.host import torchscript

# Query and values as attention takes them, and keys.
_HEADS, _KEYS = Layout(0, 2, 4), Layout(0, 3, 4)
# What is worth being in the region; other nodes stay outside unless such a node depends on them.
_WORK = ("aten::linear", "aten::layer_norm")
# How many nodes may be between an attention and the linear of its query.
_STEPS = 16


@dataclass
class Region:
    """The nodes to compute for real tokens only, in order, by the name of their first output.

    `batch` is the shape of the attention mask. `entries` are nodes with the position of an argument that comes from
    outside, and its layout. `attentions` are all of the graph; those that are also in `nodes` belong to the region.
    """

    sizes: Shapes
    batch: tuple[int, ...]
    attentions: dict[str, Attention] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    entries: list[tuple[Node, int, Layout]] = field(default_factory=list)

    @property
    def known(self) -> set[str]:
        """The names of its tensors, and of those that enter."""
        return {node.inputsAt(position).debugName() for node, position, _ in self.entries} | set(self.layouts)

    def can_enter(self, value: Value, layout: Layout) -> bool:
        """Whether a value from outside can be packed with a layout; its rows may be broadcast."""
        shape = self.sizes.get(value.debugName(), ())
        if len(shape) != layout.rank or value.debugName() in self.layouts:
            return False
        return shape[layout.tokens] == self.batch[1] and shape[layout.rows] in (1, self.batch[0])


def find_region(nodes: Sequence[Node], sizes: Shapes, batch: tuple[int, ...]) -> Region:
    """The region of a graph's nodes."""
    region = _grow(nodes, Region(sizes, batch))
    _trim(region)
    return region


def _grow(nodes: Sequence[Node], region: Region) -> Region:
    found = {name_of(node): parts for node in nodes if (parts := attention(node, region.sizes)) is not None}
    # An attention without a mask also reads padding, and needs it.
    region.attentions = {name: parts for name, parts in found.items() if parts.mask is not None}
    # The inputs of an attention's linears.
    entry_names = {
        name for parts in region.attentions.values() for seed in _seeds(parts) for name in _entry_names(seed)
    }
    for node in nodes:
        if not node.outputsSize():
            continue
        name = name_of(node)
        layout: Layout | None = None
        entries: list[tuple[Node, int, Layout]] = []
        if name in region.attentions:
            parts = region.attentions[name]
            layouts = [region.layouts.get(value.debugName()) for value in parts[:3]]
            layout = _HEADS if layouts == [_HEADS, _KEYS, _HEADS] else None
        elif node.kind() in BINARY:
            layout, entries = _binary(node, region)
        elif _is_entry(node, entry_names) and region.can_enter(node.inputsAt(0), TOKENS):
            layout, entries = TOKENS, [(node, 0, TOKENS)]
        else:
            layout = layout_of(node, region.layouts, region.sizes)
        if layout is not None:
            region.nodes[name] = node
            region.layouts |= {output.debugName(): layout for output in node.outputs()}
            region.entries += entries
    return region


def _seeds(parts: Attention) -> Iterator[Node]:
    """The linears that an attention's query, keys and values come from."""
    for value in parts[:3]:
        node = value.node()
        for _ in range(_STEPS):
            if node.kind() == "aten::linear" or not node.inputsSize():
                break
            node = node.inputsAt(0).node()
        if node.kind() == "aten::linear" and constant(node.inputsAt(1)) is not None:
            yield node


def _entry_names(linear: Node) -> Iterator[str]:
    """The input of a linear, and the same before quantisation."""
    yield linear.inputsAt(0).debugName()
    if takes_codes(linear):
        yield linear.inputsAt(0).node().inputsAt(0).node().inputsAt(0).debugName()


def _is_entry(node: Node, entry_names: set[str]) -> bool:
    """Whether a node is one where the region may begin: a linear, or the quantisation in front of one."""
    linear = node.kind() == "aten::linear" and constant(node.inputsAt(1)) is not None
    return (linear or node.kind() == QUANTISE) and node.inputsAt(0).debugName() in entry_names


def _binary(node: Node, region: Region) -> tuple[Layout | None, list[tuple[Node, int, Layout]]]:
    """The layout of an operator of two tensors, and the entries that it needs."""
    both = [node.inputsAt(position) for position in (0, 1)]
    known = {layout for value in both if (layout := region.layouts.get(value.debugName())) is not None}
    if len(known) != 1:
        return None, []
    (layout,) = known
    if len(region.sizes.get(name_of(node), ())) != layout.rank:
        return None, []
    entries = []
    for position, value in enumerate(both):
        if value.debugName() in region.layouts or not value.type().isSubtypeOf(torchscript.TENSOR):
            continue
        shape = region.sizes.get(value.debugName())
        if shape is None:
            return None, []
        # Counted from the back, as broadcasting does.
        behind = [place - layout.rank + len(shape) for place in layout[:2]]
        if all(place < 0 or shape[place] == 1 for place in behind):
            continue
        if not region.can_enter(value, layout):
            return None, []
        entries.append((node, position, layout))
    return layout, entries


def _trim(region: Region) -> None:
    """Remove nodes on which nothing in the region depends: their readers need all positions."""
    useful: set[str] = set()
    for name, node in reversed(list(region.nodes.items())):
        readers = [use.user for output in node.outputs() for use in output.uses()]
        parts = {name_of(reader) for reader in readers if reader.outputsSize()}
        inner = {name_of(one): output for output, found in region.attentions.items() for one in found.inner}
        read = {inner.get(part, part) for part in parts}
        if node.kind() in _WORK or name in region.attentions or read & useful:
            useful.add(name)
        else:
            del region.nodes[name]
            for output in node.outputs():
                del region.layouts[output.debugName()]
    region.entries = [entry for entry in region.entries if name_of(entry[0]) in region.nodes]


@dataclass(frozen=True)
class OutsideUse:
    """A tensor of the region, its name before the graph was changed, and a reader outside."""

    value: Value
    name: str
    layout: Layout
    reader: Node
    position: int


def _by_reader(one: OutsideUse, other: OutsideUse) -> int:
    return -1 if one.reader.isBefore(other.reader) else 1


def uses_outside(region: Region) -> list[OutsideUse]:
    """All of them, the earliest readers first."""
    return sorted(_uses(region), key=functools.cmp_to_key(_by_reader))


def _uses(region: Region) -> Iterator[OutsideUse]:
    inside = set(region.nodes)
    for name, parts in region.attentions.items():
        if name in inside:
            inside |= {name_of(node) for node in parts.inner}
    for node in region.nodes.values():
        for output in node.outputs():
            for use in output.uses():
                reader = use.user
                if not reader.outputsSize() or name_of(reader) not in inside:
                    yield OutsideUse(output, output.debugName(), region.layouts[output.debugName()], reader, use.offset)


def name_of(node: Node) -> str:
    """The name of a node's first output."""
    return node.outputsAt(0).debugName()
