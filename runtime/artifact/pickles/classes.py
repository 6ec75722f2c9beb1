"""The classes that an artifact's code declares, with the types of their attributes and the names of their methods.

Declarations that exports do not contain are refused: TorchScript would fill such a class by other rules than those that
are checked here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.artifact.pickles.rules import OWN_CLASS
from runtime.artifact.pickles.types import Type, parse_type
from runtime.artifact.pickles.values import InvalidPickle

_RECORD = re.compile(r"code/((?:\w+/)*\w+)\.py", re.ASCII)
_LISTS_OF_NAMES = {"__parameters__", "__buffers__", "__annotations__"}


@dataclass(frozen=True)
class Class:
    """The attributes of a class, each with its type, and the names of its methods."""

    attributes: dict[str, Type]
    methods: frozenset[str]


def declared_classes(sources: Mapping[str, ast.Module]) -> dict[str, Class]:
    """Every class of the code, by its name with dots: `__torch__.exporter.adapter.Adapter`.

    Args:
        sources: the text of each record under `code/`, parsed, by the record's name.

    Raises:
        InvalidPickle: a declaration has a form that exports do not contain.
    """
    found: dict[str, Class] = {}
    for record, tree in sources.items():
        path = _RECORD.fullmatch(record)
        if path is None:
            raise InvalidPickle(f"code in a record named {record}", named=True)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                continue
            name = f"{path[1].replace('/', '.')}.{getattr(node, 'name', '')}"
            if not isinstance(node, ast.ClassDef) or [ast.unparse(base) for base in node.bases] != ["Module"]:
                raise InvalidPickle(f"{record}: what is no class of the form `class X(Module)`")
            if name in found or not OWN_CLASS.fullmatch(name):
                raise InvalidPickle(f"the class {name} twice, or under a name that PyTorch treats in its own way")
            found[name] = _class(name, node)
    return found


def _class(name: str, node: ast.ClassDef) -> Class:
    attributes: dict[str, Type] = {}
    methods: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef):
            # `__setstate__` would run while the file is read, and could set any attributes.
            if statement.name.startswith("__") or statement.name in methods:
                raise InvalidPickle(f"the method {name}.{statement.name}")
            methods.add(statement.name)
        elif declared := _attribute(statement):
            attribute, expression = declared
            kind = parse_type(expression)
            if kind is None or attribute in attributes:
                text = ast.unparse(expression)[:80]
                raise InvalidPickle(f"the attribute {name}.{attribute}, declared twice or of the type {text}")
            attributes[attribute] = kind
        elif not _is_list_of_names(statement):
            raise InvalidPickle(f"{name}: a statement of the form {type(statement).__name__} in its declaration")
    return Class(attributes, frozenset(methods))


def _attribute(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    """The name and type in `name : Type`, or in `__annotations__["name"] = Type` for other than Python names."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is None:
        return statement.target.id, statement.annotation
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Subscript):
        return None
    target, index = statement.targets[0].value, statement.targets[0].slice
    if len(statement.targets) > 1 or not isinstance(target, ast.Name) or target.id != "__annotations__":
        return None
    if not isinstance(index, ast.Constant) or not isinstance(index.value, str):
        return None
    return index.value, statement.value


def _is_list_of_names(statement: ast.stmt) -> bool:
    """Whether a statement has the form `__parameters__ = ["a", ]` or `__annotations__ = []`."""
    return (
        isinstance(statement, ast.Assign)
        and all(isinstance(target, ast.Name) and target.id in _LISTS_OF_NAMES for target in statement.targets)
        and isinstance(statement.value, ast.List)
        and all(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in statement.value.elts)
    )
