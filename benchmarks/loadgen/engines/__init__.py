"""The engines: one module each, all with one function, `engine(job, rows)`, which returns an `Engine`.

This module needs no package; each of the others imports its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.loadgen.queueing import Done
from benchmarks.loadgen.systems import Strategy


@dataclass(frozen=True)
class Job:
    """What a worker is to serve: a system in one layout, from which files.

    `contender` is the system's name; `files` has what its module names: `artifact`, `onnx`, `ir`.
    """

    contender: str
    module: str
    precision: str
    streams: int
    threads: int
    samples: str
    # For LoadGen's own logs.
    logs: str
    files: dict[str, str] = field(default_factory=dict)


class Service(Protocol):
    """A running system: queries in, answers out, each told to its own `done` from whichever thread has it."""

    def submit(self, number: int, done: Done) -> None:
        """Queue a sample; returns at once."""

    def close(self) -> None:
        """End when all that was submitted is answered."""


class Engine(Protocol):
    """A loaded model."""

    def answer(self, number: int) -> Any:
        """One sample at once, in the caller's thread: logits, float32 [labels]."""

    def service(self, strategy: Strategy) -> Service:
        """A service with that strategy; the layout is the job's own."""
