"""Types for TorchScript's intermediate representation: the methods of graphs, nodes and values that the passes use.

PyTorch declares these classes itself, but not all of their methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from runtime.host.torchscript import ScriptModule


class Value(Protocol):
    """What a node takes or gives: a tensor, a list, a number."""

    def debugName(self) -> str:
        """Its name, which is unique in the graph."""

    def node(self) -> Node:
        """The node that gives it."""

    def type(self) -> Any:
        """Its TorchScript type."""

    def setType(self, kind: Any) -> Any:
        """Set its TorchScript type."""

    def uses(self) -> Sequence[Use]:
        """Where it is read."""

    def toIValue(self) -> Any:
        """The content of a constant; None for anything else."""

    def replaceAllUsesWith(self, other: Value) -> None:
        """Let all readers read another value."""

    def copyMetadata(self, other: Value) -> None:
        """Take the type of another value."""


class Use(Protocol):
    """One reader of a value, and the position of the value among its inputs."""

    user: Node
    offset: int


class Node(Protocol):
    """One operation of a graph."""

    def kind(self) -> str:
        """Its operator, such as `aten::linear`."""

    def inputs(self) -> Iterable[Value]:
        """Its arguments."""

    def inputsAt(self, position: int) -> Value:
        """One argument."""

    def inputsSize(self) -> int:
        """The number of arguments."""

    def outputs(self) -> Iterable[Value]:
        """Its results."""

    def outputsAt(self, position: int) -> Value:
        """One result."""

    def outputsSize(self) -> int:
        """The number of results."""

    def output(self) -> Value:
        """Its only result."""

    def hasUses(self) -> bool:
        """Whether any result is read."""

    def blocks(self) -> Iterable[Graph]:
        """The bodies of a loop or a condition."""

    def isBefore(self, other: Node) -> bool:
        """Whether it runs before another node."""

    def isAfter(self, other: Node) -> bool:
        """Whether it runs after another node."""

    def insertBefore(self, other: Node) -> Any:
        """Put a new node in front of another one."""

    def insertAfter(self, other: Node) -> Any:
        """Put a new node after another one."""

    def moveBefore(self, other: Node) -> Any:
        """Move it in front of another node."""

    def replaceInput(self, position: int, value: Value) -> Any:
        """Set one argument."""

    def copyMetadata(self, other: Node) -> None:
        """Take the source location of another node."""

    def s(self, name: str) -> str:
        """An attribute that is a string."""

    def s_(self, name: str, value: str) -> Any:
        """Set a string attribute."""

    def destroy(self) -> None:
        """Remove it from the graph."""


class Graph(Protocol):
    """A graph, or the body of a node."""

    def nodes(self) -> Iterable[Node]:
        """The nodes in the order in which they run."""

    def inputs(self) -> Iterable[Value]:
        """The module itself, then the arguments."""

    def outputs(self) -> Iterable[Value]:
        """The results."""

    def create(self, kind: str, inputs: Sequence[Value], outputs: int) -> Node:
        """A new node that is not in the graph yet."""

    def copy(self) -> Graph:
        """A copy; values without names are numbered anew."""

    def setInsertPoint(self, node: Node) -> None:
        """Where the next constants are inserted: in front of this node."""

    def insertConstant(self, value: Any) -> Value:
        """A new constant at the insert point."""

    def registerOutput(self, value: Value) -> Any:
        """Add a result."""

    def eraseOutput(self, position: int) -> None:
        """Remove a result."""

    def eraseInput(self, position: int) -> None:
        """Remove an argument."""


def graph_of(module: ScriptModule) -> Graph:
    """The graph of a frozen module's forward."""
    # PyTorch's own declaration lacks methods that the class has.
    return cast("Graph", module.graph)
