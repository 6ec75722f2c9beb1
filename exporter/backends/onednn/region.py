"""The part of a graph that can work on real tokens alone.

It begins at a first attention's linears and reaches as far as nodes keep tokens apart.

In: a frozen module's nodes with their example's shapes, the shape of the attention mask. Out: a `Region`. Refuses
nothing; a region without an attention is of no use.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.backends.onednn.attend import Attention, attention
from exporter.backends.onednn.int8 import QUANTISE, takes_codes
from exporter.backends.onednn.layout import BINARY, TOKENS, Layout, layout_of
from exporter.tracing.graphs.graph import Shapes, constant
from runtime.host import torchscript

# Query and values as attention takes them, and keys.
_HEADS, _KEYS = Layout(0, 2, 4), Layout(0, 3, 4)
# What is worth being in the region; whatever else nothing of that kind reads, stays outside.
_WORK = ("aten::linear", "aten::layer_norm")
# Steps from an attention back to the linear of its query.
_STEPS = 16


@dataclass
class Region:
    """The nodes that work on real tokens, in order, by the name of their first output.

    `batch` is the shape of the attention mask, `entries` are nodes with the position of an argument that comes from
    outside, and its layout. `attentions` are the graph's; those that `nodes` has too are in the region.
    """

    sizes: Shapes
    batch: tuple[int, ...]
    attentions: dict[str, Attention] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    entries: list[tuple[Any, int, Layout]] = field(default_factory=list)

    @property
    def known(self) -> set[str]:
        """The names of its tensors, and of those that enter."""
        return {node.inputsAt(position).debugName() for node, position, _ in self.entries} | set(self.layouts)

    def enters(self, value: Any, layout: Layout) -> bool:
        """Whether a value from outside can be brought into a layout: rows may be broadcast."""
        shape = self.sizes.get(value.debugName(), ())
        if len(shape) != layout.rank or value.debugName() in self.layouts:
            return False
        return shape[layout.tokens] == self.batch[1] and shape[layout.rows] in (1, self.batch[0])


def find_region(nodes: Sequence[Any], sizes: Shapes, batch: tuple[int, ...]) -> Region:
    """The region of a graph's nodes."""
    region = _found(nodes, Region(sizes, batch))
    _trim(region)
    return region


def _found(nodes: Sequence[Any], region: Region) -> Region:
    found = {name_of(node): parts for node in nodes if (parts := attention(node, region.sizes)) is not None}
    # Without a mask an attention reads padding, and has to have it.
    region.attentions = {name: parts for name, parts in found.items() if parts.mask is not None}
    # What the linears of an attention take, to which others may belong.
    openings = {name for parts in region.attentions.values() for seed in _seeds(parts) for name in _openings(seed)}
    for node in nodes:
        if not node.outputsSize():
            continue
        name = name_of(node)
        layout: Layout | None = None
        entries: list[tuple[Any, int, Layout]] = []
        if name in region.attentions:
            parts = region.attentions[name]
            given = [region.layouts.get(value.debugName()) for value in parts[:3]]
            layout = _HEADS if given == [_HEADS, _KEYS, _HEADS] else None
        elif node.kind() in BINARY:
            layout, entries = _binary(node, region)
        elif _opens(node, openings) and region.enters(node.inputsAt(0), TOKENS):
            layout, entries = TOKENS, [(node, 0, TOKENS)]
        else:
            layout = layout_of(node, region.layouts, region.sizes)
        if layout is not None:
            region.nodes[name] = node
            region.layouts |= {output.debugName(): layout for output in node.outputs()}
            region.entries += entries
    return region


def _seeds(parts: Attention) -> Iterator[Any]:
    """The linears that an attention's query, keys and values come from."""
    for value in parts[:3]:
        node = value.node()
        for _ in range(_STEPS):
            if node.kind() == "aten::linear" or not node.inputsSize():
                break
            node = node.inputsAt(0).node()
        if node.kind() == "aten::linear" and constant(node.inputsAt(1)) is not None:
            yield node


def _openings(linear: Any) -> Iterator[str]:
    """What a linear takes, and before it was quantised: codes that were taken apart again are no codes any more."""
    yield linear.inputsAt(0).debugName()
    if takes_codes(linear):
        yield linear.inputsAt(0).node().inputsAt(0).node().inputsAt(0).debugName()


def _opens(node: Any, openings: set[str]) -> bool:
    """Whether a node is one where the region may begin: a linear, or the quantisation in front of one."""
    linear = node.kind() == "aten::linear" and constant(node.inputsAt(1)) is not None
    return (linear or node.kind() == QUANTISE) and node.inputsAt(0).debugName() in openings


def _binary(node: Any, region: Region) -> tuple[Layout | None, list[tuple[Any, int, Layout]]]:
    """The layout of an operator of two tensors, and what has to be brought into it."""
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
        if not region.enters(value, layout):
            return None, []
        entries.append((node, position, layout))
    return layout, entries


def _trim(region: Region) -> None:
    """Take out what no work in the region depends on: it is left to those who read all places."""
    useful: set[str] = set()
    for name, node in reversed(list(region.nodes.items())):
        readers = [use.user for output in node.outputs() for use in output.uses()]
        parts = {name_of(reader) for reader in readers if reader.outputsSize()}
        inner = {name_of(one): answer for answer, found in region.attentions.items() for one in found.inner}
        read = {inner.get(part, part) for part in parts}
        if node.kind() in _WORK or name in region.attentions or read & useful:
            useful.add(name)
        else:
            del region.nodes[name]
            for output in node.outputs():
                del region.layouts[output.debugName()]
    region.entries = [entry for entry in region.entries if name_of(entry[0]) in region.nodes]


@dataclass(frozen=True)
class Use:
    """A tensor of the region, its name before the graph was changed, and a reader outside."""

    value: Any
    name: str
    layout: Layout
    reader: Any
    position: int


def _by_reader(one: Use, other: Use) -> int:
    return -1 if one.reader.isBefore(other.reader) else 1


def uses_outside(region: Region) -> list[Use]:
    """All of them, the earliest readers first."""
    return sorted(_uses(region), key=functools.cmp_to_key(_by_reader))


def _uses(region: Region) -> Iterator[Use]:
    inside = set(region.nodes)
    for name, parts in region.attentions.items():
        if name in inside:
            inside |= {name_of(node) for node in parts.inner}
    for node in region.nodes.values():
        for output in node.outputs():
            for use in output.uses():
                reader = use.user
                if not reader.outputsSize() or name_of(reader) not in inside:
                    yield Use(output, output.debugName(), region.layouts[output.debugName()], reader, use.offset)


def name_of(node: Any) -> str:
    """The name of a node's first output."""
    name: str = node.outputsAt(0).debugName()
    return name
