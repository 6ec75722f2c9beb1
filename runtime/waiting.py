"""The requests that wait for their turn: oldest first, and by length.

How many may wait is the caller's to decide. Nothing here is locked: the caller holds a lock of its own. The benchmarks
batch the queries of other runtimes by the same queue, in environments without torch, which is imported for types alone.

Adding, taking out and asking for the oldest take the same time however many wait; asking for a batch takes as long as
the batch is large.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import torch

Answer: TypeAlias = "dict[str, torch.Tensor]"

# Deadlines of requests that have gone are kept until they are more than this, and more than those that wait.
_STALE = 64


class Queued(Protocol):
    """What the queue has to know of a request; each is equal to itself alone."""

    @property
    def rows(self) -> int:
        """How many rows of a batch it takes."""

    @property
    def length(self) -> int:
        """Of its rows, in tokens."""

    @property
    def key(self) -> Hashable:
        """Only requests of the same key may share a batch."""

    @property
    def deadline(self) -> float | None:
        """When it is no longer wanted; None for never."""

    @property
    def most_rows(self) -> int | None:
        """Of a batch; None for no limit."""


_Queued = TypeVar("_Queued", bound=Queued)


@dataclass(eq=False)  # one is equal to itself alone: tensors do not compare to a truth
class Request:
    """Rows that one caller wants answered; only those of the same key may share a batch.

    `length` is that of the sequence axis in tokens. Times are seconds of `time.monotonic`: it arrived, it waits for
    others `until` then, it is no longer wanted after its deadline. `most_rows` is that of a batch, None for no limit;
    `compute` gives the answers to the tensors of a batch.
    """

    tensors: Sequence[torch.Tensor]
    rows: int
    length: int
    key: Hashable
    compute: Callable[[Sequence[Sequence[torch.Tensor]]], list[Answer]]
    arrived: float
    until: float
    deadline: float | None = None
    most_rows: int | None = None
    future: Future[Answer] = field(default_factory=Future)


class Waiting(Generic[_Queued]):
    """Requests in the order of their arrival.

    Args:
        max_tokens: of a batch: rows times the longest of them. A larger request is a batch of its own.
    """

    def __init__(self, max_tokens: int) -> None:
        self.rows = 0
        self._max_tokens = max_tokens
        # A linked list: a dict would look through all that were taken out before it finds its first.
        self._order: OrderedDict[_Queued, None] = OrderedDict()
        self._alike: dict[Hashable, _Alike[_Queued]] = {}
        self._deadlines: list[tuple[float, int, _Queued]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, request: object) -> bool:
        return request in self._order

    @property
    def oldest(self) -> _Queued:
        """Whose turn it is; there must be one."""
        return next(iter(self._order))

    def add(self, request: _Queued) -> None:
        """The newest."""
        self._order[request] = None
        self._alike.setdefault(request.key, _Alike()).add(request)
        self.rows += request.rows
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, next(self._numbers), request))
            self._forget_stale()

    def remove(self, request: _Queued) -> None:
        """Take out one that waits."""
        del self._order[request]
        self.rows -= request.rows
        alike = self._alike[request.key]
        alike.remove(request)
        if not alike.lengths:
            del self._alike[request.key]

    def expired(self, now: float) -> list[_Queued]:
        """Take out those whose deadline has passed."""
        found = []
        while self._deadlines and self._deadlines[0][0] < now:
            request = heapq.heappop(self._deadlines)[2]
            if request in self._order:
                self.remove(request)
                found.append(request)
        return found

    def batch(self) -> tuple[list[_Queued], bool]:
        """The oldest and those nearest in length that fit, which still wait; whether there is no room left."""
        oldest = self.oldest
        batch, rows, longest = [oldest], oldest.rows, oldest.length
        for request in self._alike[oldest.key].nearest(oldest.length):
            if request is oldest:
                continue
            more, longer = rows + request.rows, max(longest, request.length)
            if more * longer > self._max_tokens or (oldest.most_rows is not None and more > oldest.most_rows):
                return batch, True
            batch.append(request)
            rows, longest = more, longer
        return batch, (rows + 1) * longest > self._max_tokens or rows == oldest.most_rows

    def _forget_stale(self) -> None:
        if len(self._deadlines) > 2 * len(self._order) + _STALE:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._order]
            heapq.heapify(self._deadlines)


class _Alike(Generic[_Queued]):
    """Requests that may share a batch, by length; of one length in the order of their arrival."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._of_length: dict[int, OrderedDict[_Queued, None]] = {}

    def add(self, request: _Queued) -> None:
        if request.length not in self._of_length:
            self._of_length[request.length] = OrderedDict()
            insort(self.lengths, request.length)
        self._of_length[request.length][request] = None

    def remove(self, request: _Queued) -> None:
        same = self._of_length[request.length]
        del same[request]
        if not same:
            del self._of_length[request.length]
            del self.lengths[bisect_left(self.lengths, request.length)]

    def nearest(self, length: int) -> Iterator[_Queued]:
        """All, those of the nearest length first; of two that are equally near, the shorter."""
        above = bisect_left(self.lengths, length)
        below = above - 1
        while below >= 0 or above < len(self.lengths):
            further = self.lengths[above] - length if above < len(self.lengths) else None
            if below >= 0 and (further is None or length - self.lengths[below] <= further):
                found, below = self.lengths[below], below - 1
            else:
                found, above = self.lengths[above], above + 1
            yield from self._of_length[found]
