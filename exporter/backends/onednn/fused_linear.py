"""A linear of a graph together with what is computed in the same pass: an activation or an addition."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.tracing.graphs.ir import Node, Value


@dataclass(frozen=True)
class Fused:
    """One linear and what is fused with it: `last` is the node whose output it gives, `added` what is added."""

    linear: Node
    last: Node
    added: Value | None = None
    activation: str = "none"
    # The approximation of gelu: "none" or "tanh".
    algorithm: str | None = None

    @property
    def kind(self) -> str:
        """For people."""
        if self.added is not None:
            return "linear+add"
        return "linear" if self.last is self.linear else f"linear+{self.last.kind().removeprefix('aten::')}"
