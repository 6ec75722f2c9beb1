"""Queries that wait, taken as batches of similar lengths: for the peers what `runtime.serving.pool` does for artifacts.

The batches are those of the pool, as its own queue forms them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from runtime.serving.request_queue import RequestQueue

# Called once a query, with its row of logits, or with what went wrong.
Done = Callable[[Any], None]


@dataclass(frozen=True, eq=False)
class Query:
    """A sample by number, and who is to be told: one row, which may share a batch with any other."""

    rows: ClassVar[int] = 1
    key: ClassVar[str] = ""
    deadline: ClassVar[float | None] = None
    most_rows: ClassVar[int | None] = None

    number: int
    length: int
    done: Done


class Queue:
    """A queue between the thread that submits and those that compute.

    Args:
        max_tokens: of a batch, rows times longest; None: each query is a batch of its own.
    """

    def __init__(self, max_tokens: int | None) -> None:
        # Two queries are more than one token.
        self._waiting: RequestQueue[Query] = RequestQueue(1 if max_tokens is None else max_tokens)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, query: Query) -> None:
        """Let it wait."""
        with self._changed:
            self._waiting.add(query)
            self._changed.notify()

    def take(self) -> list[Query]:
        """The next batch, as soon as there is one; empty when the queue is closed and all is taken."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            batch, _ = self._waiting.batch()
            for query in batch:
                self._waiting.remove(query)
            return batch

    def close(self) -> None:
        """Nothing comes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Places in order of length: what may be done where all queries are there from the beginning (Offline).

    The longest first, so that the last ones, which may leave a stream idle, are short.
    """
    return sorted(range(len(lengths)), key=lambda place: -lengths[place])
