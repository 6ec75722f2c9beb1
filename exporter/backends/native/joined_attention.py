"""One operator per layer for what stands between the joined linear of queries, keys and values and the output linear.

A model takes its queries, keys and values out of one tensor, rotates the first two, and gives them to attention over a
cache. For a single token, the calls of these operators take longer than what they compute. Which numbers of the joined
tensor are taken is found by following their places (places.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from exporter.backends.native.attention import ATTEND_CACHED
from exporter.backends.native.places import RESHAPES, places, shared_source
from exporter.backends.native.rotary import ROTATE
from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

ATTEND_JOINED = "em_native::attend_joined"


def place_joined_attention(graph: Graph, sizes: Shapes) -> int:
    """Replace attention over a cache whose queries, keys and values stand in one tensor; returns the number of them.

    After the rotations were placed, and before the linears: sizes are known by the names that the graph had then.
    """
    found = 0
    # Nodes that come after these are destroyed.
    for node in [node for node in graph.nodes() if node.kind() == ATTEND_CACHED]:
        if (parts := _joined(node, sizes)) is not None:
            _place(graph, node, parts)
            found += 1
    eliminate_dead_code(graph)
    return found


class _Joined(NamedTuple):
    """What the operator takes besides the rest of the arguments, and the nodes that have its result."""

    whole: Value
    angles: list[Value]
    results: list[Node]


def _joined(node: Node, sizes: Shapes) -> _Joined | None:
    query, key, value, keys, values = list(node.inputs())[:5]
    rotations = [_rotation(query), _rotation(key)]
    angles = [[each.debugName() for each in rotation[1:]] for rotation in rotations]
    taken = [rotations[0][0], rotations[1][0], value]
    whole = shared_source(taken, 3, sizes)
    if whole is None or angles[0] != angles[1]:
        return None
    rows, tokens, features = sizes[whole.debugName()]
    _, heads, _, width = sizes[keys.debugName()]
    value_width = sizes[values.debugName()][3]
    of_queries = features - heads * (width + value_width)
    if of_queries <= 0 or of_queries % (heads * width):
        return None
    numbers = torch.arange(rows * tokens * features).view(rows, tokens, features)
    parts = numbers.split([of_queries, heads * width, heads * value_width], 2)
    for each, part, size in zip(taken, parts, (width, width, value_width), strict=True):
        found = places(each, whole, numbers, sizes)
        if found is None or not torch.equal(found, part.unflatten(2, (-1, size)).transpose(1, 2)):
            return None
    readers = [use.user for use in node.output().uses()]
    # The rows and the tokens, which the operator's result has at the same places.
    results = [each for each in readers if each.kind() != "aten::size" or constant(each.inputsAt(1)) not in (0, 1)]
    shape = (rows, tokens, of_queries // width * value_width)
    if any(each.kind() not in RESHAPES or sizes.get(each.output().debugName()) != shape for each in results):
        return None
    return _Joined(whole, rotations[0][1:], results)


def _rotation(value: Value) -> list[Value]:
    """The value that is rotated, the cosines and the sines; the value itself if it is not rotated."""
    node = value.node()
    return list(node.inputs()) if node.kind() == ROTATE else [value]


def _place(graph: Graph, node: Node, parts: _Joined) -> None:
    *_, keys, values, positions, mask, scale, window = node.inputs()
    graph.setInsertPoint(node)
    angles = parts.angles or [graph.insertConstant(None)] * 2
    arguments = [parts.whole, *angles, keys, values, positions, mask, scale, window]
    output = insert(graph, node, ATTEND_JOINED, arguments, node)
    for each in parts.results:
        each.output().replaceAllUsesWith(output)
        each.destroy()
    node.output().replaceAllUsesWith(output)
    # It writes to its arguments, so it is no dead code.
    node.destroy()
    for reader in [use.user for use in output.uses()]:
        # The operator's result is contiguous.
        if reader.kind() == "aten::contiguous" and constant(reader.inputsAt(1)) == 0:
            reader.output().replaceAllUsesWith(output)
