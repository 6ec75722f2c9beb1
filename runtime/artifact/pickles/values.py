"""The values on the pickle interpreter's stack. Numbers, strings, booleans and None are Python's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Value = Any


class InvalidPickle(Exception):
    """What is wrong with a pickle. `named`: it names a function, class or opcode that exports do not use."""

    def __init__(self, problem: str, named: bool = False) -> None:
        self.named = named
        super().__init__(problem)


@dataclass(frozen=True)
class Name:
    """A function, class, type of numbers or scheme: `module name`, as in the pickle."""

    text: str


@dataclass(frozen=True)
class Storage:
    """Numbers in a record: so many, all of one type."""

    dtype: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor, checked against its record."""

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
    """A list: filled once, then given the type of its elements; `kind` is empty before."""

    items: list[Value] = field(default_factory=list)
    filled: bool = False
    kind: str = ""
    depth: int = 1


@dataclass(eq=False)
class Dict:
    """The attributes of an object, before BUILD: filled once."""

    items: dict[str, Value] = field(default_factory=dict)
    filled: bool = False
    depth: int = 1


@dataclass(frozen=True)
class Unbuilt:
    """An object between NEWOBJ and BUILD."""

    name: str


@dataclass(frozen=True)
class Object:
    """An object whose attributes were compared with its class; `name` is the class's, with dots."""

    name: str


@dataclass(frozen=True)
class Hooks:
    """The empty place of backward hooks."""
