"""The values on the pickle interpreter's stack. Numbers, strings, booleans and None are Python's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Value = Any


class InvalidPickle(Exception):
    """A problem of a pickle. `named`: it names a function, class or opcode that exports do not use."""

    def __init__(self, problem: str, named: bool = False) -> None:
        self.named = named
        super().__init__(problem)


@dataclass(frozen=True)
class Name:
    """The name of a function, class, number type or quantisation scheme: `module name`, as in the pickle."""

    text: str


@dataclass(frozen=True)
class Storage:
    """The numbers in a record: their type and count."""

    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor that was checked against its record."""

    dtype: str
    size: tuple[int, ...]
    contiguous: bool


@dataclass(frozen=True)
class Tuple:
    """A tuple."""

    items: tuple[Value, ...]
    depth: int


@dataclass(eq=False)
class List:
    """A list, filled at most once. `kind` is the type of its elements, empty until it is set."""

    items: list[Value] = field(default_factory=list)
    filled: bool = False
    kind: str = ""
    depth: int = 1


@dataclass(eq=False)
class Dict:
    """The attributes of an object before BUILD, filled at most once."""

    items: dict[str, Value] = field(default_factory=dict)
    filled: bool = False
    depth: int = 1


@dataclass(frozen=True)
class Unbuilt:
    """An object between NEWOBJ and BUILD."""

    name: str


@dataclass(frozen=True)
class Object:
    """An object whose attributes were compared with its class; `name` is the qualified name of the class."""

    name: str


@dataclass(frozen=True)
class Hooks:
    """A tensor's backward hooks, always empty."""
