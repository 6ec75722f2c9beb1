"""What a layout is: a published name, a builder of its folder, and how its answers are compared."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime import Session


class Mismatch(Exception):
    """The artifact's answers are not those of the authors' library."""


class Comparison(Protocol):
    """Answers of the authors' library for a folder, and of an artifact."""

    def expected(self, folder: Path) -> Any:
        """What the library answers, in eager fp32; anything that torch.save takes."""

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the artifact's answers.

        Raises:
            Mismatch: they are not the same.
        """


@dataclass(frozen=True)
class Layout:
    """One published folder.

    Attributes:
        name: on the hub.
        area: the part of the table that it is in.
        build: writes the folder.
        comparison: how answers are compared; None where the folder must be refused.
        refused: for folders that must be refused: a pattern that the message has to match, which names the cause.
        why: for these: why it must be.
    """

    name: str
    area: str
    build: Callable[[Path], None]
    comparison: Comparison | None = None
    refused: str = ""
    why: str = ""

    def blank(self) -> dict[str, Any]:
        """Its row before anything is known."""
        return {
            "layout": self.name,
            "area": self.area,
            "answers": type(self.comparison).__name__ if self.comparison else "",
            "must": "be refused" if self.refused else "be right",
            "date": datetime.date.today().isoformat(),
            "reason": "",
            "max_error": None,
            "seconds": None,
        }


Builder = Callable[[Path], None]


def in_area(area: str) -> Callable[..., Layout]:
    """A short form of `Layout` for one area."""

    def make(name: str, build: Builder, comparison: Comparison | None = None, **more: str) -> Layout:
        return Layout(name, area, build, comparison, **more)

    return make
