"""Write rows of token ids on, several at once: the prompts in pieces, then one token of each row per call.

Rows have different lengths, and end at different times: a row that has ended leaves the cache, the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from runtime.format.manifest import GenerationInfo
from runtime.generation.cache import Caches
from runtime.generation.row import Row, Step
from runtime.generation.settings import Settings

# A file's method `decode`: ids, positions, kept and caches in; logits [rows, kept, vocabulary] out.
Decode = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]

# Tokens of a prompt per row and call: longer pieces take memory for masks and scores, and are no faster.
PIECE = 512


class Loop:
    """A generation of several rows.

    Args:
        decode: the file's method.
        info: the manifest's section.
        prompts: the ids of each row, one at least, fewer than `info.longest`.
        most: how many new tokens each row may get, one at least; within `info.longest` with its prompt.
        settings: how to choose.
        logprobs: whether steps tell probabilities.
        numbers: of each prompt among those of the caller, for its seed; None: 0, 1, …
    """

    def __init__(
        self,
        decode: Decode,
        info: GenerationInfo,
        prompts: Sequence[Sequence[int]],
        most: Sequence[int],
        settings: Settings,
        *,
        logprobs: bool = False,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self._decode, self._info = decode, info
        self._rows = [
            Row(number, prompt, limit, settings, info.stop_ids, logprobs=logprobs, shift=shift)
            for number, (prompt, limit, shift) in enumerate(
                zip(prompts, most, numbers or range(len(prompts)), strict=True)
            )
        ]
        self._ended: set[int] = set()

    def end(self, row: int) -> None:
        """Give a row no further token."""
        self._ended.add(row)

    def steps(self) -> Iterator[list[Step]]:
        """The next token of every row that has not ended, until all have."""
        caches = Caches(self._info, len(self._rows), max(len(row.ids) for row in self._rows) + 1)
        logits = read_prompts(self._decode, caches, [row.ids for row in self._rows])
        while True:
            found = [row.take(logits[place]) for place, row in enumerate(self._rows)]
            yield found
            ended = {step.row for step in found if step.finish is not None} | self._ended
            live = [place for place, row in enumerate(self._rows) if row.number not in ended]
            if not live:
                return
            if len(live) < len(self._rows):
                caches.keep_rows(live)
                self._rows = [self._rows[place] for place in live]
            caches.make_room(max(len(row.ids) for row in self._rows))
            ids = torch.tensor([[row.ids[-1]] for row in self._rows])
            positions = torch.tensor([[len(row.ids) - 1] for row in self._rows])
            logits = self._decode(ids, positions, torch.zeros_like(ids), caches.tensors)[:, 0]


def read_prompts(decode: Decode, caches: Caches, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The logits behind each prompt, [rows, vocabulary].

    Shorter prompts are padded behind their end: what padding writes there is not seen, and overwritten later.
    """
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    whole = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
    found: torch.Tensor | None = None
    for start in range(0, longest, PIECE):
        ids = whole[:, start : start + PIECE]
        positions = torch.arange(start, start + ids.shape[1]).expand(ids.shape)
        last = lengths - 1 - start
        kept = last.clamp(0, ids.shape[1] - 1).unsqueeze(1)
        logits = decode(ids, positions, kept, caches.tensors)[:, 0]
        here = ((last >= 0) & (last < ids.shape[1])).unsqueeze(1)
        found = logits if found is None else torch.where(here, logits, found)
    assert found is not None
    return found
