"""The contenders: one module each, all with one function, `writers(job)`.

It returns loaders by name; the worker keeps the one that writes fastest, and the report names it. A contender that has
not got the row's precision raises `RefusedError` with the reason. This module needs no package; each of the others
imports its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


class RefusedError(Exception):
    """A contender does not have this precision, on this processor or at all; the message is the reason."""


@dataclass(frozen=True)
class Written:
    """Some new ids behind each prompt, greedy and not ended by a stop token; and when each came, in seconds."""

    ids: list[list[int]]
    moments: list[list[float]]


# Prompts and how many new tokens behind each; the clock runs from its call on.
Write = Callable[[Sequence[Sequence[int]], int], Written]
Writers = dict[str, Callable[[], Write]]
