"""Types as TorchScript's code writes them, and whether a value has such a type."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from runtime.artifact.pickles.rules import LISTS, MAX_DEPTH
from runtime.artifact.pickles.values import List, Object, Tensor, Tuple, Value

_PLAIN = {"Tensor", "int", "float", "bool", "str", "NoneType"}
# The element types that a pickled list can be marked with.
_ELEMENTS = set(LISTS.values())


@dataclass(frozen=True)
class Type:
    """A plain type or class with the name `kind`, or a `List`, `Tuple` or `Optional` of the `inner` types."""

    kind: str
    inner: tuple[Type, ...] = ()

    def fits(self, value: Value) -> bool:
        """Whether a value has exactly this type; for example, an int is not a float."""
        if self.kind == "Optional":
            return value is None or self.inner[0].fits(value)
        if self.kind == "List":
            return isinstance(value, List) and value.kind == self.inner[0].kind
        if self.kind == "Tuple":
            same = isinstance(value, Tuple) and len(value.items) == len(self.inner)
            return same and all(kind.fits(item) for kind, item in zip(self.inner, value.items, strict=True))
        return kind_of(value) == self.kind


def kind_of(value: Value) -> str:
    """The name of a plain value's type or of an object's class; empty for containers and everything else."""
    if value is None:
        return "NoneType"
    # bool before int, since a Python bool is an int.
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"), (Tensor, "Tensor")):
        if isinstance(value, kind):
            return name
    return value.name if isinstance(value, Object) else ""


def parse_type(node: ast.AST, depth: int = 0) -> Type | None:
    """The type in an expression such as `Optional[Tensor]` or `__torch__.a.B`; None if exports do not use it."""
    if isinstance(node, ast.Name):
        return Type(node.id) if node.id in _PLAIN else None
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        return Type(name) if name.startswith("__torch__.") and "(" not in name else None
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name) or depth >= MAX_DEPTH:
        return None
    expressions = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    inner = [parse_type(expression, depth + 1) for expression in expressions]
    kind, known = node.value.id, tuple(found for found in inner if found is not None)
    single = kind == "Optional" or (kind == "List" and all(found.kind in _ELEMENTS for found in known))
    if len(known) != len(inner) or not (kind == "Tuple" or (single and len(known) == 1)):
        return None
    return Type(kind, known)
