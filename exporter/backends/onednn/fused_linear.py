"""A linear of a graph with what is computed in the same pass: an activation, or an addition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fused:
    """One linear with what it does besides: the node whose answer it gives, and what is added or applied."""

    linear: Any
    last: Any
    added: Any = None
    activation: str = "none"
    # Whether gelu is exact or by tanh.
    algorithm: str | None = None

    @property
    def kind(self) -> str:
        """For people."""
        if self.added is not None:
            return "linear+add"
        return "linear" if self.last is self.linear else f"linear+{self.last.kind().removeprefix('aten::')}"
