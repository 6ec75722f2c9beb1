"""Compute only what the head reads: if it reads one token per row, the last layer is computed for that token alone.

Picking a token, such as `hidden[:, 0]`, can be moved up in front of everything that treats each token by itself:
linears, layer norms, activations, sums of the same shape. It is moved up as far as nothing else reads the results in
between, which is up to the last layer's attention, since that needs all tokens. The numbers are the same, computed in
the same order, for fewer tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import Shapes, constant, insert, shapes
from exporter.tracing.graphs.ir import Graph, Node, Use, Value, graph_of
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

# Operators that treat each token by itself.
_LINEARS = ("aten::linear", "torch_ipex::ipex_linear", "torch_ipex::ipex_MKLSGEMM")
_UNARY = (
    *("aten::gelu", "aten::relu", "aten::silu", "aten::tanh", "aten::sigmoid", "aten::to", "aten::contiguous"),
    "aten::rsqrt",
    # One scale for the whole tensor.
    *("aten::quantize_per_tensor", "aten::dequantize"),
)
_BINARY = ("aten::add", "aten::sub", "aten::mul", "aten::div")
_PICKS = ("aten::select", "aten::index")
_END = 2**63 - 1


def prune(module: ScriptModule, example: ExampleInputs) -> int:
    """Move every pick up as far as possible.

    Returns:
        The number of linears that now compute the picked tokens only.
    """
    graph = graph_of(module)
    if not any(node.kind() in _PICKS for node in graph.nodes()):
        return 0
    _drop_whole_slices(graph)
    sizes = shapes(module, example)
    linears = 0
    for picks in _groups(graph, sizes):
        cone = _cone(graph, picks, sizes)
        found = sum(node.kind() in _LINEARS for node in cone)
        if found and _hoist(picks, cone):
            _move(graph, picks, cone, sizes)
            linears += found
    eliminate_dead_code(graph)
    return linears


def _drop_whole_slices(graph: Graph) -> None:
    """`x[:]` is `x`."""
    for node in list(graph.nodes()):
        if node.kind() == "aten::slice":
            value, _, start, end, step = node.inputs()
            if _is(start, 0, None) and _is(end, _END, None) and _is(step, 1):
                node.output().replaceAllUsesWith(value)
    eliminate_dead_code(graph)


def _is(value: Value, *expected: Any) -> bool:
    return value.node().kind() == "prim::Constant" and value.toIValue() in expected


def _numbers(value: Value) -> list[Any] | None:
    """A list of constants; None for anything else."""
    if value.node().kind() == "prim::ListConstruct":
        return [constant(one) for one in value.node().inputs()]
    found = constant(value)
    return list(found) if isinstance(found, (list, tuple)) else None


def _groups(graph: Graph, sizes: Shapes) -> list[dict[str, Node]]:
    """Picks of one token per row, by the name of their output; those of the same token are together."""
    groups: dict[tuple[Any, ...], dict[str, Node]] = {}
    for node in graph.nodes():
        if node.kind() in _PICKS and len(sizes.get(node.inputsAt(0).debugName(), ())) == 3:
            key = _token(node, sizes)
            if key is not None:
                groups.setdefault(key, {})[_name(node)] = node
    return list(groups.values())


def _token(pick: Node, sizes: Shapes) -> tuple[Any, ...] | None:
    """A key for the token that a node picks; None if it does not pick one token per row."""
    if pick.kind() == "aten::select":
        axis, index = (constant(value) for value in list(pick.inputs())[1:])
        return ("select", index) if axis == 1 and index is not None else None
    indices = list(pick.inputsAt(1).node().inputs())
    # hidden[rows, positions]: one position per row.
    if len(indices) != 2 or any(len(sizes.get(index.debugName(), ())) != 1 for index in indices):
        return None
    return ("index", pick.inputsAt(1).debugName())


def _tokens_of(node: Node, sizes: Shapes) -> tuple[int, ...]:
    """The positions of the arguments that hold tokens; empty if the node does not treat each token by itself."""
    kind = node.kind()
    shape = sizes.get(_name(node), ()) if node.outputsSize() == 1 else ()
    if len(shape) != 3:
        return ()
    if kind in _LINEARS or kind in _UNARY:
        return (0,)
    if kind == "aten::layer_norm":
        return (0,) if len(constant(node.inputsAt(1)) or ()) == 1 else ()
    if kind == "aten::pow":
        return (0,) if isinstance(constant(node.inputsAt(1)), (int, float)) else ()
    if kind == "aten::mean":
        # Over a token's features, whose axis stays, as in a root mean square norm.
        return (0,) if _numbers(node.inputsAt(1)) == [-1] and _is(node.inputsAt(2), True) else ()
    if kind not in _BINARY:
        return ()
    both = [sizes.get(node.inputsAt(position).debugName()) for position in (0, 1)]
    # A number, or a vector of features, is the same for all tokens; other shapes may depend on rows or tokens.
    of_tokens = (shape, (*shape[:2], 1))
    if any(found is not None and len(found) > 1 and tuple(found) not in of_tokens for found in both):
        return ()
    return tuple(position for position in (0, 1) if both[position] is not None and len(both[position] or ()) == 3)


def _cone(graph: Graph, picks: dict[str, Node], sizes: Shapes) -> list[Node]:
    """The nodes, in order, whose outputs are read only by the picks, or token by token by other such nodes."""
    cone: dict[str, Node] = {}

    def reads_a_token(use: Use) -> bool:
        reader = use.user
        if reader.outputsSize() != 1:
            return False
        if _name(reader) in picks:
            return bool(use.offset == 0)
        return _name(reader) in cone and use.offset in _tokens_of(reader, sizes)

    for node in reversed(list(graph.nodes())):
        if _tokens_of(node, sizes) and node.hasUses() and all(map(reads_a_token, node.output().uses())):
            cone[_name(node)] = node
    return list(reversed(cone.values()))


def _hoist(picks: dict[str, Node], cone: list[Node]) -> bool:
    """Move the nodes that compute which token is picked in front of the first node of the cone, if possible."""
    pick, first = next(iter(picks.values())), cone[0]
    if pick.kind() == "aten::select":
        return True
    late = list(_late(pick.inputsAt(1).node(), first, set()))
    # An operator that changes its argument must not be moved, and a position must not depend on the picks themselves.
    if any(node.kind().endswith("_") or _name(node) in picks for node in late):
        return False
    for node in late:
        node.moveBefore(first)
    return True


def _late(node: Node, first: Node, seen: set[str]) -> Iterator[Node]:
    """The node and its dependencies that run after `first`, dependencies first."""
    if node.kind() == "prim::Param" or _name(node) in seen or not node.isAfter(first):
        return
    seen.add(_name(node))
    for value in node.inputs():
        yield from _late(value.node(), first, seen)
    yield node


def _move(graph: Graph, picks: dict[str, Node], cone: list[Node], sizes: Shapes) -> None:
    """Repeat the nodes for the picked tokens alone, and let the picks' readers read the results."""
    model = next(iter(picks.values()))
    which = list(model.inputs())[1:]
    picked: dict[str, Value] = {}

    def one(value: Value, before: Node) -> Value:
        if value.debugName() not in picked:
            picked[value.debugName()] = insert(graph, before, model.kind(), [value, *which], model)
        return picked[value.debugName()]

    for node in cone:
        tokens = _tokens_of(node, sizes)
        arguments = [one(value, node) if position in tokens else value for position, value in enumerate(node.inputs())]
        picked[_name(node)] = insert(graph, node, node.kind(), arguments, node)
    for pick in picks.values():
        if pick.inputsAt(0).debugName() in picked:
            pick.output().replaceAllUsesWith(picked[pick.inputsAt(0).debugName()])


def _name(node: Node) -> str:
    return node.outputsAt(0).debugName()
