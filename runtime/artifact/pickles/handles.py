"""Check the code's uses of packed weights: IPEX's operators get them as an address, in a tensor.

Each address must come from a constant of the class that the operator expects. Any other number would be used as an
address without a check.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from runtime.artifact.pickles.rules import HANDLES
from runtime.artifact.pickles.types import kind_of
from runtime.artifact.pickles.values import InvalidPickle, Value

_CONSTANT = re.compile(r"c(0|[1-9][0-9]{0,6})", re.ASCII)


def check_handles(sources: Mapping[str, ast.Module], constants: Sequence[Value]) -> None:
    """Compare each use of a handle, `(CONSTANTS.c5).get_data_handle()`, with the operator that takes it.

    Raises:
        InvalidPickle: the first use that does not fit.
    """
    functions = [node for tree in sources.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        _check_function(list(ast.walk(function)), constants)


def _check_function(nodes: list[ast.AST], constants: Sequence[Value]) -> None:
    held = _named_handles(nodes)
    # Parents come before their children, so the operator around a handle is seen before the handle itself.
    fitting = {id(handle) for handle in held.values()}
    for node in nodes:
        if isinstance(node, ast.Call) and (operator := _operator(node.func)) in HANDLES:
            place, expected = HANDLES[operator]
            handle = node.args[place] if len(node.args) > place else None
            named = held.get(handle.id) if isinstance(handle, ast.Name) else handle
            if node.keywords or _class(named, constants) != expected:
                raise InvalidPickle(f"a call of {operator} without packed weights of {expected}")
            fitting.add(id(handle))
        elif id(node) not in fitting and (_handle(node) is not None or _reads(node, held)):
            raise InvalidPickle("an address of packed weights that something else than its operator takes")


def _named_handles(nodes: list[ast.AST]) -> dict[str, ast.expr]:
    """Handles assigned to a name that has no other value, as in `_7 = (CONSTANTS.c5).get_data_handle()`."""
    stored = Counter(node.id for node in nodes if isinstance(node, ast.Name) and not _is_read(node))
    stored.update(node.arg for node in nodes if isinstance(node, ast.arg))
    return {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        and _handle(node.value) is not None
        and len(node.targets) == 1
        and isinstance(node.targets[0], ast.Name)
        and stored[node.targets[0].id] == 1
    }


def _reads(node: ast.AST, held: Mapping[str, ast.expr]) -> bool:
    return isinstance(node, ast.Name) and node.id in held and _is_read(node)


def _is_read(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)


def _operator(node: ast.expr) -> str:
    """The last part of a name such as `ops.torch_ipex.NAME`."""
    return node.attr if isinstance(node, ast.Attribute) else ""


def _handle(node: ast.AST | None) -> ast.expr | None:
    """The object whose method `get_data_handle` is called; None if the node is not such a call."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get_data_handle":
        return node.func.value
    return None


def _class(handle: ast.AST | None, constants: Sequence[Value]) -> str:
    owner = _handle(handle)
    if not isinstance(owner, ast.Attribute) or not isinstance(owner.value, ast.Name) or owner.value.id != "CONSTANTS":
        return ""
    place = _CONSTANT.fullmatch(owner.attr)
    return kind_of(constants[int(place[1])]) if place and int(place[1]) < len(constants) else ""
