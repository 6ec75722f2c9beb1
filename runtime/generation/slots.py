"""Rows of keys and values for requests that come and go, in tensors of one size.

The memory is taken once, for a number of tokens, and divided into rows of one length: `decode` takes tensors of
[rows, heads, length, width], so a row's length is what a page is elsewhere. Rows in use are the first ones, without
gaps, since a call takes neighbouring rows.

A row that has been given back keeps its tokens until the row is needed. A new request whose first tokens are the same
as those of any row takes over their keys and values. Everything else in the memory is 0: what lies behind a row's end
is hidden by masks, but hidden times NaN would still be NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from runtime.errors import ArtifactFailedError
from runtime.format.manifest import GenerationInfo

# Rows have a multiple of so many tokens, where there is room: so their length changes rarely.
_STEP = 64
# Equal beginnings that are shorter than this are read again: copying is not worth a call of its own.
LEAST_REUSED = 16


@dataclass
class _Slot:
    """One row: the tokens whose keys and values it holds, and up to where it has been written to.

    `needs` is the number of tokens that it may get, 0 if it is not in use. `stamp` grows with each use.
    """

    ids: list[int] = field(default_factory=list)
    written: int = 0
    needs: int = 0
    stamp: int = 0


class Slots:
    """The rows.

    Args:
        info: the manifest's section.
        rows: how many there may be at most.
        tokens: how many all rows have together; `info.longest` at least.

    Raises:
        ArtifactFailedError: there is no memory for it.
    """

    def __init__(self, info: GenerationInfo, rows: int, tokens: int) -> None:
        self._info, self._most, self._tokens = info, rows, tokens
        self._stamps = itertools.count(1)
        self.count = 0
        self._slots: list[_Slot] = []
        self._tensors: list[torch.Tensor] = []
        try:
            self._memory = [
                torch.zeros([tokens * one.heads * one.width], dtype=getattr(torch, one.dtype)) for one in info.caches
            ]
        # PyTorch's own error for memory is a RuntimeError.
        except (RuntimeError, MemoryError) as error:
            raise ArtifactFailedError(
                f"there is no memory for a cache of {tokens} tokens", "", "give a smaller cache_tokens"
            ) from error
        self._divide(min(info.longest, tokens // rows))

    @property
    def length(self) -> int:
        """How many tokens a row can have now."""
        return self._tensors[0].shape[2]

    @property
    def bytes(self) -> int:
        """The memory of all rows."""
        return sum(one.numel() * one.element_size() for one in self._memory)

    def fits(self, needs: int) -> bool:
        """Whether there is room for a further row of so many tokens."""
        return self.count < self._most and (self.count + 1) * max(needs, self._longest()) <= self._tokens

    def add(self, needs: int, prompt: Sequence[int]) -> int:
        """Take a row into use, behind the others; `fits` has said that it does.

        Args:
            needs: how many tokens it may get.
            prompt: its first ones.

        Returns:
            How many of the prompt's tokens it holds already; the last one is never among them.
        """
        longest = max(needs, self._longest())
        if longest > self.length or (self.count + 1) * self.length > self._tokens:
            stepped = min(self._info.longest, max(-(-longest // _STEP) * _STEP, self._tokens // self._most))
            self._divide(stepped if (self.count + 1) * stepped <= self._tokens else longest)
        shared = [_shared(slot.ids, prompt) for slot in self._slots]
        best = max(range(len(shared)), key=shared.__getitem__)
        reused = shared[best] if shared[best] >= LEAST_REUSED else 0
        place = min(range(self.count, len(self._slots)), key=lambda one: self._slots[one].stamp)
        if reused and place != best:
            self._clear(place, 0)
            for tensor in self._tensors:
                tensor[place, :, :reused] = tensor[best, :, :reused]
        else:
            self._clear(place, reused)
        self._slots[place] = _Slot(list(prompt[:reused]), reused, needs, next(self._stamps))
        self.swap(place, self.count)
        self.count += 1
        return reused

    def writes(self, row: int, end: int) -> None:
        """Note, before a call, that it writes to places of a row before `end`."""
        slot = self._slots[row]
        slot.written = max(slot.written, end)

    def read(self, row: int, ids: Sequence[int]) -> None:
        """Note, after a call, that a row holds further tokens."""
        self._slots[row].ids.extend(ids)

    def remove_last(self, *, forget: bool) -> None:
        """Give back the last row in use; `forget` its tokens, which may be wrong."""
        self.count -= 1
        slot = self._slots[self.count]
        slot.needs, slot.stamp = 0, next(self._stamps)
        if forget:
            self._clear(self.count, 0)
            slot.stamp = 0

    def swap(self, one: int, other: int) -> None:
        """Let two rows change their places."""
        if one == other:
            return
        end = max(self._slots[one].written, self._slots[other].written)
        for tensor in self._tensors:
            tensor[[one, other], :, :end] = tensor[[other, one], :, :end]
        self._slots[one], self._slots[other] = self._slots[other], self._slots[one]

    def view(self, start: int, stop: int) -> list[torch.Tensor]:
        """The tensors of neighbouring rows, for `decode` to write to."""
        return [tensor[start:stop] for tensor in self._tensors]

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0
        for memory in self._memory:
            memory.zero_()
        self._slots = [_Slot() for _ in self._slots]

    def release(self) -> None:
        """Give the memory back; there are no rows any more."""
        self.count, self._memory, self._tensors, self._slots = 0, [], [], []

    def _longest(self) -> int:
        return max((slot.needs for slot in self._slots[: self.count]), default=1)

    def _clear(self, row: int, start: int) -> None:
        slot = self._slots[row]
        if slot.written > start:
            for tensor in self._tensors:
                tensor[row, :, start : slot.written] = 0
        slot.ids, slot.written = slot.ids[:start], min(slot.written, start)

    def _divide(self, length: int) -> None:
        """Let rows have another length. Those in use keep what they hold, the others are forgotten."""
        count, used = self.count, self._slots[: self.count]
        for row in range(count, len(self._slots)):
            self._clear(row, 0)
        end = max((slot.written for slot in used), default=0)
        # Padding may have been written further than any row needs.
        kept = min(end, length)
        rows = min(self._most, self._tokens // length)
        tensors = []
        for number, (memory, one) in enumerate(zip(self._memory, self._info.caches, strict=True)):
            if end:
                old = self._tensors[number][:count, :, :end]
                held = old[:, :, :kept].clone()
                old.zero_()
            tensors.append(memory[: rows * one.heads * length * one.width].view(rows, one.heads, length, one.width))
            if end:
                tensors[-1][:count, :, :kept] = held
        for slot in used:
            slot.written = min(slot.written, length)
        self._tensors = tensors
        self._slots = [*used, *(_Slot() for _ in range(rows - count))]


def _shared(ids: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens two rows have in common at their beginning, without the prompt's last."""
    most = min(len(ids), len(prompt) - 1)
    return next((place for place in range(most) if ids[place] != prompt[place]), max(most, 0))
