"""Compute only what the head reads: heads that take one token of each row need the last layer's output for it alone.

In: a frozen module, the traced example. Out: how many linears now work on one token of each row instead of all; the
graph is changed in place. Refuses nothing, and changes nothing where all tokens are read.

A pick, such as `hidden[:, 0]`, commutes with everything that treats each token by itself: linears, layer norms,
activations, sums of the same shape. It is moved up through these, as far as nothing else reads what they make; that is,
up to the last layer's attention, which needs all tokens. Same numbers, in the same order of operations, for fewer
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import Shapes, constant, insert, shapes
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

# Operators that treat each token by itself → the positions of the tensors of tokens among their arguments.
_LINEARS = ("aten::linear", "torch_ipex::ipex_linear", "torch_ipex::ipex_MKLSGEMM")
_UNARY = (
    *("aten::gelu", "aten::relu", "aten::silu", "aten::tanh", "aten::sigmoid", "aten::to", "aten::contiguous"),
    # One scale for the whole tensor.
    *("aten::quantize_per_tensor", "aten::dequantize"),
)
_BINARY = ("aten::add", "aten::sub", "aten::mul", "aten::div")
_PICKS = ("aten::select", "aten::index")
_END = 2**63 - 1


def prune(module: ScriptModule, example: ExampleInputs) -> int:
    """Move every pick up as far as it goes.

    Returns:
        The number of linears that now work on picked tokens.
    """
    graph = module.graph
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


def _drop_whole_slices(graph: Any) -> None:
    """`x[:]` is `x`."""
    for node in list(graph.nodes()):
        if node.kind() == "aten::slice":
            value, _, start, end, step = node.inputs()
            if _is(start, 0, None) and _is(end, _END, None) and _is(step, 1):
                node.output().replaceAllUsesWith(value)
    eliminate_dead_code(graph)


def _is(value: Any, *expected: Any) -> bool:
    return value.node().kind() == "prim::Constant" and value.toIValue() in expected


def _groups(graph: Any, sizes: Shapes) -> list[dict[str, Any]]:
    """Picks of one token of each row by the name of their answer, those of the same token together."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for node in graph.nodes():
        if node.kind() in _PICKS and len(sizes.get(node.inputsAt(0).debugName(), ())) == 3:
            key = _token(node, sizes)
            if key is not None:
                groups.setdefault(key, {})[_name(node)] = node
    return list(groups.values())


def _token(pick: Any, sizes: Shapes) -> tuple[Any, ...] | None:
    """Which token a node picks, as something to compare; None if it picks anything but one token of each row."""
    if pick.kind() == "aten::select":
        axis, index = (constant(value) for value in list(pick.inputs())[1:])
        return ("select", index) if axis == 1 and index is not None else None
    indices = list(pick.inputsAt(1).node().inputs())
    # hidden[rows, positions]: one of each for every row.
    if len(indices) != 2 or any(len(sizes.get(index.debugName(), ())) != 1 for index in indices):
        return None
    return ("index", pick.inputsAt(1).debugName())


def _tokens_of(node: Any, sizes: Shapes) -> tuple[int, ...]:
    """The positions of the arguments that are tensors of tokens; empty if the node does not treat each by itself."""
    kind = node.kind()
    shape = sizes.get(_name(node), ()) if node.outputsSize() == 1 else ()
    if len(shape) != 3:
        return ()
    if kind in _LINEARS or kind in _UNARY:
        return (0,)
    if kind == "aten::layer_norm":
        return (0,) if len(constant(node.inputsAt(1)) or ()) == 1 else ()
    if kind not in _BINARY:
        return ()
    both = [sizes.get(node.inputsAt(position).debugName()) for position in (0, 1)]
    # A number, or a vector of features, is the same for all tokens; anything else could mean rows or tokens.
    if any(found is not None and len(found) > 1 and found != shape for found in both):
        return ()
    return tuple(position for position in (0, 1) if both[position] == shape)


def _cone(graph: Any, picks: dict[str, Any], sizes: Shapes) -> list[Any]:
    """The nodes, in order, whose answers nothing reads but the picks, and other such nodes token by token."""
    cone: dict[str, Any] = {}

    def reads_a_token(use: Any) -> bool:
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


def _hoist(picks: dict[str, Any], cone: list[Any]) -> bool:
    """Bring what says which token in front of the first node that needs it; whether that was possible."""
    pick, first = next(iter(picks.values())), cone[0]
    if pick.kind() == "aten::select":
        return True
    late = list(_late(pick.inputsAt(1).node(), first, set()))
    # An operator that changes its argument stays where it is; and no position can follow from a token it picks.
    if any(node.kind().endswith("_") or _name(node) in picks for node in late):
        return False
    for node in late:
        node.moveBefore(first)
    return True


def _late(node: Any, first: Any, seen: set[str]) -> Iterator[Any]:
    """A node and all it depends on that stand behind `first`, dependencies first."""
    if node.kind() == "prim::Param" or _name(node) in seen or not node.isAfter(first):
        return
    seen.add(_name(node))
    for value in node.inputs():
        yield from _late(value.node(), first, seen)
    yield node


def _move(graph: Any, picks: dict[str, Any], cone: list[Any], sizes: Shapes) -> None:
    """Write the nodes anew, for the picked tokens, and let the picks' readers read these."""
    model = next(iter(picks.values()))
    which = list(model.inputs())[1:]
    picked: dict[str, Any] = {}

    def one(value: Any, before: Any) -> Any:
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


def _name(node: Any) -> str:
    name: str = node.outputsAt(0).debugName()
    return name
