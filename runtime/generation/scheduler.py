"""Write the rows of many requests together, which join and leave between calls.

A step is at most two calls of a file's `decode`. The first gives one more token to every row that is being written. The
second reads prompts: all rows whose prompt is not read yet get an equal number of its tokens, within a budget, so that
a long prompt delays neither the tokens of others nor a short prompt. They are two calls since `decode` takes as many
tokens of each row as of any other: rows with one token would be padded to the length of a piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from runtime.format.manifest import GenerationInfo
from runtime.generation.loop import Decode
from runtime.generation.slots import Slots


class Writing(Protocol):
    """What the scheduler has to know of a request; requests are compared by identity."""

    @property
    def ids(self) -> Sequence[int]:
        """The prompt and what has been written behind it."""

    @property
    def prompt(self) -> int:
        """How many of them are the prompt's."""

    @property
    def needs(self) -> int:
        """How many tokens there can be at most, prompt included."""

    def take(self, logits: torch.Tensor) -> bool:
        """Add a token by the logits behind the last one, [vocabulary]; whether it was the last one."""

    def fail(self, error: BaseException) -> None:
        """End with an error: the call failed for this request alone, or `take` raised it."""


_Writing = TypeVar("_Writing", bound=Writing)


@dataclass(eq=False)
class _Live(Generic[_Writing]):
    """A request in a row; `read` tokens of its prompt are in the cache."""

    request: _Writing
    read: int


@dataclass
class Work:
    """What has been computed: calls; tokens of prompts, read or taken over; new ones; and all with padding."""

    calls: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    tokens: int = 0
    computed_tokens: int = 0


class Scheduler(Generic[_Writing]):
    """The rows of one artifact. Not locked: one thread uses it.

    Args:
        decode: the file's method.
        info: the manifest's section.
        rows: how many requests are written at the same time.
        cache_tokens: how many tokens their caches hold together; `info.longest` at least.
        max_tokens: how many tokens of prompts a step reads; `rows` at least.

    Raises:
        ArtifactFailedError: there is no memory for the caches.
    """

    def __init__(self, decode: Decode, info: GenerationInfo, rows: int, cache_tokens: int, max_tokens: int) -> None:
        self._decode, self._info, self._budget = decode, info, max_tokens
        self._slots = Slots(info, rows, cache_tokens)
        # In the order of the slots: rows that are being written, then those whose prompt is being read.
        self._live: list[_Live[_Writing]] = []
        self._writing = 0
        self.work = Work()

    @property
    def requests(self) -> list[_Writing]:
        """Those that have not ended."""
        return [one.request for one in self._live]

    @property
    def cache_bytes(self) -> int:
        """The memory of the caches."""
        return self._slots.bytes

    def fits(self, request: _Writing) -> bool:
        """Whether there is a row for a further request now."""
        return self._slots.fits(request.needs)

    def add(self, request: _Writing) -> None:
        """Begin a request, of which `fits` has said that there is a row."""
        reused = self._slots.add(request.needs, request.ids)
        self._live.append(_Live(request, reused))
        self.work.reused_tokens += reused

    def drop(self, request: _Writing) -> None:
        """Forget a request that shall not be written on."""
        self._leave(next(row for row, one in enumerate(self._live) if one.request is request))

    def clear(self) -> None:
        """Forget all requests and all tokens."""
        self._live, self._writing = [], 0
        self._slots.clear()

    def release(self) -> None:
        """Give the memory back; no request can be added any more."""
        self._slots.release()

    def step(self) -> None:
        """Give each row that is written its next token, then read more of the prompts."""
        # Rows that begin to be written by this step's second call wait for the next one.
        if self._writing:
            self._write()
        if len(self._live) > self._writing:
            self._read()

    def _write(self) -> None:
        rows = range(self._writing)
        ids = torch.tensor([[self._live[row].request.ids[-1]] for row in rows])
        positions = torch.tensor([[len(self._live[row].request.ids) - 1] for row in rows])
        found = self._call(0, ids, positions, torch.zeros_like(ids))
        for row in rows:
            if not isinstance(found[row], BaseException):
                self._slots.read(row, self._live[row].request.ids[-1:])
        self.work.tokens += len(rows)
        self._take(list(zip(self._live[: len(rows)], found, strict=True)))

    def _read(self) -> None:
        """The rows that are shorter than others of the call are padded behind their end, in their last call alone.

        What padding writes is hidden, and overwritten when the row gets there. No prompt reaches a row's last place.
        """
        first, reading = self._writing, self._live[self._writing :]
        left = [one.request.prompt - one.read for one in reading]
        size = min(max(left), self._budget // len(reading))
        last = min(self._slots.length, self._info.longest) - 1
        sizes = [min(size, one) for one in left]
        pieces = [one.request.ids[one.read : one.read + count] for one, count in zip(reading, sizes, strict=True)]
        ids = torch.tensor([[*piece, *([piece[-1]] * (size - len(piece)))] for piece in pieces])
        starts = torch.tensor([[one.read] for one in reading])
        positions = (starts + torch.arange(size)).clamp(max=last)
        found = self._call(first, ids, positions, torch.tensor([[count - 1] for count in sizes]))
        ready: list[tuple[_Live[_Writing], torch.Tensor | BaseException]] = []
        for number, (one, piece, logits) in enumerate(zip(reading, pieces, found, strict=True)):
            if isinstance(logits, BaseException):
                ready.append((one, logits))
                continue
            self._slots.read(first + number, piece)
            one.read += len(piece)
            self.work.prompt_tokens += len(piece)
            if one.read == one.request.prompt:
                self._move(first + number, self._writing)
                self._writing += 1
                ready.append((one, logits))
        self.work.tokens += sum(sizes)
        self._take(ready)

    def _call(
        self, first: int, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor
    ) -> list[torch.Tensor | BaseException]:
        """The logits of each row from `first` on, [vocabulary], or why there are none.

        A call that fails is made again in halves, down to the row that fails alone; what it has written is written
        again. If memory ran out, half of the rows may fit.
        """
        rows = len(ids)
        for number, end in enumerate((positions[:, -1] + 1).tolist()):
            self._slots.writes(first + number, end)
        self.work.calls += 1
        self.work.computed_tokens += ids.numel()
        try:
            logits = self._decode(ids, positions, kept, self._slots.view(first, first + rows))
            return list(logits[:, 0])
        # Not only Exception: whatever is raised belongs to the requests of the call, not to the thread.
        except BaseException as error:  # noqa: BLE001
            if rows == 1:
                return [error]
        half = rows // 2
        return [
            *self._call(first, ids[:half], positions[:half], kept[:half]),
            *self._call(first + half, ids[half:], positions[half:], kept[half:]),
        ]

    def _take(self, found: Sequence[tuple[_Live[_Writing], torch.Tensor | BaseException]]) -> None:
        for one, logits in found:
            error: BaseException | None = None
            ended = True
            if isinstance(logits, BaseException):
                error = logits
            else:
                self.work.new_tokens += 1
                # A token that cannot be chosen, or a text that cannot be decoded, is that request's alone.
                try:
                    ended = one.request.take(logits)
                except BaseException as raised:  # noqa: BLE001
                    error = raised
            if ended:
                self._leave(self._live.index(one), forget=error is not None)
            if error is not None:
                one.request.fail(error)

    def _leave(self, row: int, *, forget: bool = False) -> None:
        if row < self._writing:
            self._writing -= 1
            self._move(row, self._writing)
            row = self._writing
        self._move(row, len(self._live) - 1)
        self._live.pop()
        self._slots.remove_last(forget=forget)

    def _move(self, row: int, place: int) -> None:
        self._slots.swap(row, place)
        self._live[row], self._live[place] = self._live[place], self._live[row]
