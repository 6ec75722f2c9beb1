"""Whether a file's method `decode` gives the original model's logits and tokens, however a text is divided into calls.

Rows are read at once, token by token, in uneven pieces, alone and with rows of other lengths, by one thread and by two.
What is expected are the original's full forward passes of each row alone, in eager fp32, and the tokens that
transformers' `generate` writes behind a prompt.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from runtime.errors import ManifestDamagedError
from runtime.format.golden import Case
from runtime.format.manifest import GenerationInfo, GreedyCheck
from runtime.generation.cache import Caches
from runtime.generation.loop import PIECE, Loop
from runtime.generation.settings import Settings
from runtime.session import Session
from runtime.verification.compare import Comparison, compare
from runtime.verification.two_threads import in_two_threads

# Numbers of tokens per call, again and again: no rhythm of a model's own.
_UNEVEN = (3, 1, 7, 2)
_LOGITS = "logits"
# A case with this name is called once: the longest row, of which the logits of the last tokens are expected.
LONGEST = "longest"
# Cases whose names begin like this hold the tokens behind a prompt.
GREEDY = "greedy"
# A case with this name holds rows that begin with the same tokens.
BEAMS = "beams"


def check_generation(session: Session, cases: Sequence[Case]) -> dict[str, Any]:
    """Run all cases; the report holds comparisons by what was tried, and greedy tokens by case.

    Raises:
        ExportedModelError: a call fails.
    """
    info = session.manifest.generation
    if info is None:
        raise ManifestDamagedError("the manifest does not say how text is generated")
    rows = [case for case in cases if case.name not in (LONGEST, BEAMS) and not case.name.startswith(GREEDY)]
    reader = _Reader(session, info)
    comparisons = [*reader.alone(rows), *reader.together(rows), *reader.two_threads(rows)]
    comparisons += [found for case in cases if case.name == LONGEST for found in reader.longest(case)]
    comparisons += [reader.beams(case) for case in cases if case.name == BEAMS]
    greedy = [_greedy(session, info, case) for case in cases if case.name.startswith(GREEDY)]
    return {
        "comparisons": [dataclasses.asdict(one) for one in comparisons],
        "greedy": [dataclasses.asdict(one) for one in greedy],
    }


def decode_stored(session: Session, cases: Sequence[Case]) -> list[Comparison]:
    """The stored cases of one pass, read in uneven pieces with a cache; nothing for a file that does not generate.

    Raises:
        ExportedModelError: a call fails.
    """
    info = session.manifest.generation
    if info is None:
        return []
    found = []
    for case in cases:
        logits = _Reader(session, info).read(case.inputs["input_ids"], _UNEVEN)
        if _LOGITS in case.strides:
            logits = logits.flatten()[:: case.strides[_LOGITS]]
        found.append(compare(case.name, _LOGITS, 1, logits, case.outputs[_LOGITS]))
    return found


class _Reader:
    """Reads rows with one session, in calls of different sizes."""

    def __init__(self, session: Session, info: GenerationInfo) -> None:
        self._session, self._info = session, info

    def alone(self, rows: Sequence[Case]) -> Iterator[Comparison]:
        """Each row by itself: at once, token by token, in uneven pieces."""
        for case in rows:
            ids = case.inputs["input_ids"]
            for how, sizes in (("at once", [ids.shape[1]]), ("token by token", [1]), ("in pieces", _UNEVEN)):
                yield compare(f"{case.name}, {how}", _LOGITS, 1, self.read(ids, sizes), case.outputs[_LOGITS])

    def read(self, ids: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """The logits of all tokens, read in pieces of these sizes, again and again."""
        caches, found, start = Caches(self._info, ids.shape[0], ids.shape[1]), [], 0
        for size in itertools.cycle(sizes):
            piece = ids[:, start : start + size]
            places = torch.arange(piece.shape[1]).expand(piece.shape)
            found.append(self._session.decode(piece, places + start, places, caches.tensors))
            start += size
            if start >= ids.shape[1]:
                return torch.cat(found, 1)
        raise AssertionError("there is no end of the sizes")

    def together(self, rows: Sequence[Case]) -> Iterator[Comparison]:
        """All rows in one cache, which stand at different places in every call; short ones wait at their end."""
        all_ids = [case.inputs["input_ids"][0] for case in rows]
        lengths = torch.tensor([len(ids) for ids in all_ids])
        longest = int(lengths.max())
        caches = Caches(self._info, len(rows), longest + max(_UNEVEN))
        found: list[list[torch.Tensor]] = [[] for _ in rows]
        done = torch.zeros_like(lengths)
        for call in itertools.count():
            # Each row's own half first, so that the rows of one call have different numbers of tokens left over.
            wanted = (lengths + 1) // 2 if call == 0 else torch.full_like(lengths, _UNEVEN[call % len(_UNEVEN)])
            new = torch.minimum(wanted, lengths - done)
            size = max(1, int(new.max()))
            # A row that has ended reads its last token again.
            start = torch.minimum(done, lengths - 1)
            places = (start.unsqueeze(1) + torch.arange(size)).clamp(max=caches.length - 1)
            kept = torch.arange(size).expand(places.shape)
            piece = torch.stack([ids[places[row].clamp(max=len(ids) - 1)] for row, ids in enumerate(all_ids)])
            # Behind a row's new tokens stand wrong ones, at places that later calls overwrite.
            padding = (kept >= new.unsqueeze(1)) & (places < caches.length - 1)
            piece = torch.where(padding, all_ids[0][0], piece)
            logits = self._session.decode(piece, places, kept, caches.tensors)
            for row in range(len(rows)):
                found[row].append(logits[row, : int(new[row])])
            done = done + new
            if bool((done == lengths).all()):
                break
        for case, parts in zip(rows, found, strict=True):
            yield compare(f"{case.name}, with others", _LOGITS, 1, torch.cat(parts)[None], case.outputs[_LOGITS])

    def two_threads(self, rows: Sequence[Case]) -> list[Comparison]:
        """Two threads read at the same time, each with caches of its own: one forwards, the other backwards."""

        def read(ordered: Sequence[Case]) -> Iterator[Comparison]:
            for case in ordered:
                logits = self.read(case.inputs["input_ids"], [2])
                yield compare(f"{case.name}, two threads", _LOGITS, 1, logits, case.outputs[_LOGITS])

        return in_two_threads(read, rows, rows[::-1])

    def longest(self, case: Case) -> Iterator[Comparison]:
        """The longest row, in pieces as a prompt is read, the last tokens one by one."""
        ids, expected = case.inputs["input_ids"], case.outputs[_LOGITS]
        length, last = ids.shape[1], expected.shape[1]
        caches, found, start = Caches(self._info, 1, length), [], 0
        while start < length:
            size = min(PIECE, length - last - start) if start < length - last else 1
            piece = ids[:, start : start + size]
            places = torch.arange(start, start + size)[None]
            logits = self._session.decode(piece, places, torch.tensor([[size - 1]]), caches.tensors)
            if start >= length - last:
                found.append(logits)
            start += size
        yield compare(case.name, _LOGITS, 1, torch.cat(found, 1), expected)

    def beams(self, case: Case) -> Comparison:
        """The beginning in one row, which is copied; then token by token, the rows in another order each time."""
        ids = case.inputs["input_ids"]
        count, length = ids.shape
        shared = int((ids == ids[:1]).all(0).long().cumprod(0).sum())
        places = torch.arange(shared)[None]
        caches = Caches(self._info, 1, length)
        begun = self._session.decode(ids[:1, :shared], places, places, caches.tensors)
        caches.keep_rows([0] * count)
        found = [[begun[0]] for _ in range(count)]
        order = list(range(count))
        for place in range(shared, length):
            rotated = [*range(1, count), 0]
            caches.keep_rows(rotated)
            order = [order[row] for row in rotated]
            piece = ids[order, place : place + 1]
            positions = torch.full_like(piece, place)
            logits = self._session.decode(piece, positions, torch.zeros_like(piece), caches.tensors)
            for row, own in zip(order, logits, strict=True):
                found[row].append(own)
        whole = torch.stack([torch.cat(parts) for parts in found])
        return compare("rows copied as beams are", _LOGITS, 1, whole, case.outputs[_LOGITS])


def _greedy(session: Session, info: GenerationInfo, case: Case) -> GreedyCheck:
    """The tokens behind a prompt, each the one with the largest logit, compared with the expected ones."""
    prompt, expected = case.inputs["input_ids"][0].tolist(), case.inputs["tokens"][0].tolist()
    endless = dataclasses.replace(info, stop_ids=())
    loop = Loop(session.decode, endless, [prompt], [len(expected)], Settings())
    tokens = [step.token for (step,) in loop.steps()]
    equal = next((i for i, (a, b) in enumerate(zip(tokens, expected, strict=True)) if a != b), len(expected))
    margin = None
    if equal < len(expected):
        logits = case.outputs[_LOGITS][0, equal]
        margin = float(logits[expected[equal]] - logits[tokens[equal]])
    return GreedyCheck(len(prompt), len(expected), equal, margin)
