"""The waiting requests, ordered by arrival and indexed by length.

Not locked: the caller holds a lock. The caller also decides how many requests may wait. The benchmarks batch the
queries of other runtimes by the same queue, in environments without torch, which is imported for types alone.

Adding, removing and finding the oldest request take the same time however many wait; selecting a batch takes time
proportional to the size of the batch.
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

Outputs: TypeAlias = "dict[str, torch.Tensor]"

# Deadlines of requests that were removed stay in the heap until it has this many entries more than twice the queue.
_STALE = 64


class Queued(Protocol):
    """What the queue has to know of a request; requests are compared by identity."""

    @property
    def rows(self) -> int:
        """Its rows in a batch."""

    @property
    def length(self) -> int:
        """The length of its rows, in tokens."""

    @property
    def key(self) -> Hashable:
        """Only requests with the same key may share a batch."""

    @property
    def deadline(self) -> float | None:
        """When it expires; None: never."""

    @property
    def most_rows(self) -> int | None:
        """The limit of rows in its batch; None: no limit."""


_Queued = TypeVar("_Queued", bound=Queued)


@dataclass(eq=False)  # compared by identity: comparing tensors does not give a bool
class Request:
    """The rows of one call; only requests with the same key may share a batch.

    `length` is the size of the sequence axis, in tokens. `compute` computes the outputs for the tensors of a batch,
    which has at most `most_rows` rows (None: no limit). Times are seconds of `time.monotonic`: the request waits until
    `flush_at` for others to share its batch, and fails after its `deadline`.
    """

    tensors: Sequence[torch.Tensor]
    rows: int
    length: int
    key: Hashable
    compute: Callable[[Sequence[Sequence[torch.Tensor]]], list[Outputs]]
    arrived: float
    flush_at: float
    deadline: float | None = None
    most_rows: int | None = None
    future: Future[Outputs] = field(default_factory=Future)


class RequestQueue(Generic[_Queued]):
    """Waiting requests in the order of their arrival.

    Args:
        max_tokens: limit of a batch's rows times its longest length. A larger request is a batch of its own.
    """

    def __init__(self, max_tokens: int) -> None:
        self.rows = 0
        self._max_tokens = max_tokens
        # A linked list: finding the first entry of a dict takes longer, the more entries before it were deleted.
        self._order: OrderedDict[_Queued, None] = OrderedDict()
        self._by_key: dict[Hashable, _ByLength[_Queued]] = {}
        self._deadlines: list[tuple[float, int, _Queued]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, request: object) -> bool:
        return request in self._order

    @property
    def oldest(self) -> _Queued:
        """The next request; the queue must not be empty."""
        return next(iter(self._order))

    def add(self, request: _Queued) -> None:
        """Append a request."""
        self._order[request] = None
        self._by_key.setdefault(request.key, _ByLength()).add(request)
        self.rows += request.rows
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, next(self._numbers), request))
            self._forget_stale()

    def remove(self, request: _Queued) -> None:
        """Remove a waiting request."""
        del self._order[request]
        self.rows -= request.rows
        same_key = self._by_key[request.key]
        same_key.remove(request)
        if not same_key.lengths:
            del self._by_key[request.key]

    def expired(self, now: float) -> list[_Queued]:
        """Remove and return the requests whose deadline has passed."""
        found = []
        while self._deadlines and self._deadlines[0][0] < now:
            request = heapq.heappop(self._deadlines)[2]
            if request in self._order:
                self.remove(request)
                found.append(request)
        return found

    def batch(self) -> tuple[list[_Queued], bool]:
        """The oldest request with the nearest in length that fit, not removed, and whether the batch is full."""
        oldest = self.oldest
        batch, rows, longest = [oldest], oldest.rows, oldest.length
        for request in self._by_key[oldest.key].nearest(oldest.length):
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


class _ByLength(Generic[_Queued]):
    """Requests that may share a batch, sorted by length, and by arrival if their lengths are equal."""

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
        """All requests, nearest length first; the shorter of two that are equally near."""
        above = bisect_left(self.lengths, length)
        below = above - 1
        while below >= 0 or above < len(self.lengths):
            distance_above = self.lengths[above] - length if above < len(self.lengths) else None
            if below >= 0 and (distance_above is None or length - self.lengths[below] <= distance_above):
                found, below = self.lengths[below], below - 1
            else:
                found, above = self.lengths[above], above + 1
            yield from self._of_length[found]
