"""The contenders: one module each, all with one function, `variants(job)`.

The function returns loaders of the model by name, the usual one first; the worker keeps the fastest one whose outputs
are right, and its log and the report name it. This module needs no package; each of the others imports its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """What a worker is to run: a row, in how many threads, from which files.

    `files` has what the contender's module names: `artifact`, `onnx`, …; `facts` are the model's sizes.
    """

    contender: str
    module: str
    framework: str
    model: str
    shape: str
    precision: str
    threads: int
    inputs: str
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    # Only this one, where it is known which is the fastest.
    variant: str | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch, and length where the input is text."""
        return tuple(int(size) for size in self.shape.split("x"))


@dataclass(frozen=True)
class Loaded:
    """A model that can be called.

    `feed` turns arrays by name into what `call` takes, before the clock starts; `array` turns what it gives into an
    array, after the clock has stopped; it is None where there is no answer to compare.
    """

    feed: Callable[[Mapping[str, Any]], Any]
    call: Callable[[Any], Any]
    array: Callable[[Any], Any] | None


Variants = dict[str, Callable[[], Loaded]]
