"""The register of hostile files: one function per file, found by its kind and name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# refused: by an error of this project's own, before an answer. right: loads and answers. named: either of them.
Expected = Literal["refused", "right", "named"]


@dataclass(frozen=True)
class Case:
    """One file.

    `make` takes the bytes of a small text classifier (three labels) and gives the file's. `error` is the name of the
    error that refuses it, where one is known for sure; a reader in another language has one of the same name.
    """

    kind: str
    name: str
    what: str
    make: Callable[[bytes], bytes]
    expected: Expected
    error: str = ""


CASES: list[Case] = []


def case(
    kind: str, what: str, expected: Expected = "refused", error: str = ""
) -> Callable[[Callable[[bytes], bytes]], Callable[[bytes], bytes]]:
    """Register the function below under its own name."""

    def register(make: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        add(Case(kind, make.__name__.strip("_"), what, make, expected, error))
        return make

    return register


def add(new: Case) -> None:
    """Register a case that was made in a loop."""
    assert all((old.kind, old.name) != (new.kind, new.name) for old in CASES), new
    CASES.append(new)
