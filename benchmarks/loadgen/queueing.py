"""Queries that wait, taken as batches of similar lengths: for the peers what `runtime.serving.pool` does for artifacts.

In: queries with their lengths, a budget of tokens. Out: batches, the same ones that `runtime.serving.request_queue`
forms (a test compares them). That module imports torch, which the peers' environment does not have; here the standard
library is enough.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Called once a query, with its row of logits, or with what went wrong.
Done = Callable[[Any], None]


@dataclass(frozen=True, eq=False)
class Query:
    """A sample by number, and who is to be told."""

    number: int
    length: int
    done: Done


class Queue:
    """A queue between the thread that submits and those that compute."""

    def __init__(self, max_tokens: int | None) -> None:
        self._max_tokens = max_tokens
        self._waiting: deque[Query] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, query: Query) -> None:
        """Let it wait."""
        with self._changed:
            self._waiting.append(query)
            self._changed.notify()

    def take(self) -> list[Query]:
        """The next batch, as soon as there is one; empty when the queue is closed and all is taken."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            if self._max_tokens is None:
                return [self._waiting.popleft()]
            waiting = list(self._waiting)
            places = fitting([query.length for query in waiting], self._max_tokens)
            taken = set(places)
            self._waiting = deque(query for place, query in enumerate(waiting) if place not in taken)
            return [waiting[place] for place in places]

    def close(self) -> None:
        """Nothing comes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def fitting(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """Of queries in order of arrival, the places of those in the next batch: the first and its likes.

    As many as fit into `max_tokens`, rows times longest; the first always. Of two equally near, the shorter.
    """
    first = lengths[0]
    places, longest = [0], first

    def nearness(place: int) -> tuple[int, bool]:
        return abs(lengths[place] - first), lengths[place] > first

    for place in sorted(range(1, len(lengths)), key=nearness):
        longer = max(longest, lengths[place])
        if (len(places) + 1) * longer > max_tokens:
            break
        places.append(place)
        longest = longer
    return places


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Places in order of length: what may be done where all queries are there from the beginning (Offline).

    The longest first, so that the last ones, which may leave a stream idle, are short.
    """
    return sorted(range(len(lengths)), key=lambda place: -lengths[place])
