"""Rows that join and leave between calls, with a model that counts: each gets the tokens that it has alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from runtime.errors import ArtifactFailedError
from runtime.format.manifest import CacheTensor, GenerationInfo, SamplingDefaults
from runtime.generation.scheduler import Scheduler
from runtime.generation.slots import LEAST_REUSED, Slots
from tests.test_generation_parts import Counting, counted

INFO = GenerationInfo(
    (CacheTensor(1, 1, "float32"), CacheTensor(2, 3, "float32")),
    256,
    (1,),
    SamplingDefaults(False, 1.0, 50, None, None, 1.0),
    None,
)


class Strict(Counting):
    """Counts, and refuses what the real `decode` refuses; what a row may not see is NaN for it."""

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor, caches: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        keys, values = caches
        assert keys.shape[0] == len(ids) and values.shape == (len(ids), 2, keys.shape[2], 3)
        assert int(positions.min()) >= 0 and int(positions.max()) < min(keys.shape[2], INFO.longest)
        assert bool((kept < ids.shape[1]).all())
        values.scatter_(
            2, positions[:, None, :, None].expand(-1, 2, -1, 3), ids[:, None, :, None] * torch.ones(1, 2, 1, 3)
        )
        logits = super().__call__(ids, positions, kept, caches)
        # Hidden times NaN is NaN: nothing that another row left behind may be there.
        assert bool(keys.isfinite().all())
        return logits


class Text:
    """A request that takes the token with the largest logit."""

    def __init__(self, prompt: list[int], most: int) -> None:
        self.ids, self.prompt, self.most = list(prompt), len(prompt), most
        self.error: BaseException | None = None
        self.done = False

    @property
    def needs(self) -> int:
        return self.prompt + self.most

    @property
    def new(self) -> list[int]:
        return self.ids[self.prompt :]

    def take(self, logits: torch.Tensor) -> bool:
        self.ids.append(int(logits.argmax()))
        self.done = self.ids[-1] == 1 or len(self.ids) == self.prompt + self.most
        return self.done

    def fail(self, error: BaseException) -> None:
        self.error = error


def scheduler(decode: Any = None, *, rows: int = 4, tokens: int = 512, budget: int = 16) -> Scheduler[Text]:
    return Scheduler(decode or Strict(), INFO, rows, tokens, budget)


def prompt(length: int, seed: int = 0) -> list[int]:
    return [random.Random(seed * 1000 + length).randrange(2, 50) for _ in range(length)]


def endless(length: int, most: int) -> Text:
    """A request that no stop token ends."""
    seed = next(seed for seed in range(1000) if len(counted(prompt(length, seed), most)) == most)
    return Text(prompt(length, seed), most)


def run(writer: Scheduler[Text], texts: Sequence[Text]) -> None:
    """All texts, each begun as soon as there is a row for it."""
    waiting = list(texts)
    while waiting or writer.requests:
        while waiting and writer.fits(waiting[0]):
            writer.add(waiting.pop(0))
        writer.step()


def test_rows_that_join_and_leave_have_the_tokens_that_they_have_alone() -> None:
    texts = [Text(prompt(1 + 7 * number % 120, number), 1 + 5 * number % 60) for number in range(60)]
    writer = scheduler()
    run(writer, texts)
    for text in texts:
        assert text.new == counted(text.ids[: text.prompt], text.most)
    work = writer.work
    assert work.new_tokens == sum(len(text.new) for text in texts)
    assert work.prompt_tokens + work.reused_tokens == sum(text.prompt for text in texts)
    assert 0 < work.tokens <= work.computed_tokens


def test_a_long_prompt_delays_nobody_and_is_read_meanwhile() -> None:
    decode = Strict()
    writer = scheduler(decode, tokens=1024)
    first, long, short = endless(3, 60), endless(200, 2), endless(5, 2)
    writer.add(first)
    writer.step()
    writer.add(long)
    steps = 0
    while not long.done:
        before = len(first.new)
        writer.step()
        steps += 1
        if steps == 3:
            writer.add(short)
        if steps == 5:
            # It had half of a step's tokens, and was ready in one.
            assert short.done and not long.new
        # A token in every step, and no call of more tokens than the budget.
        assert len(first.new) == before + 1
    # 16 tokens a step, 8 in the one that it shared, and a step for the second new token.
    assert steps == -(-(200 + 8) // 16) + 1
    assert max(rows * tokens for rows, tokens in decode.shapes) <= 16
    assert long.new == counted(long.ids[:200], 2) and short.new == counted(short.ids[:5], 2)


def test_a_prompt_is_padded_in_its_last_call_alone() -> None:
    decode = Strict()
    writer = scheduler(decode, rows=2, budget=20)
    run(writer, [endless(25, 1), endless(4, 1)])
    # Ten tokens of both, six of them padding of the shorter; then the rest of the longer.
    assert decode.shapes == [(2, 10), (1, 15)]
    assert (writer.work.tokens, writer.work.computed_tokens) == (29, 35)


def test_the_cache_is_bounded_and_divided_anew() -> None:
    writer = scheduler(rows=8, tokens=256)
    long, small = endless(150, 106), [endless(10 + number, 10) for number in range(9)]
    assert writer.fits(long)
    writer.add(long)
    assert not writer.fits(small[0])
    run(writer, [])
    assert long.new == counted(long.ids[:150], 106)
    for one in small[:8]:
        assert writer.fits(one)
        writer.add(one)
        writer.step()
    assert not writer.fits(small[8])
    run(writer, small[8:])
    assert all(one.new == counted(one.ids[: one.prompt], 10) for one in small)
    # All the memory there is, from the beginning to the end.
    assert writer.cache_bytes == 256 * (1 + 6) * 4


def test_rows_keep_what_they_hold_when_they_become_longer() -> None:
    writer = scheduler(rows=4, tokens=512)
    first = endless(20, 100)
    writer.add(first)
    for _ in range(5):
        writer.step()
    run(writer, [Text(prompt(140, 1), 60), Text(prompt(8, 2), 9), Text(prompt(8, 3), 9), Text(prompt(30, 4), 80)])
    assert first.new == counted(first.ids[:20], 100)


def test_equal_beginnings_are_read_once() -> None:
    system = prompt(LEAST_REUSED + 14)
    writer = scheduler(budget=64)
    first = Text([*system, 7, 8], 6)
    writer.add(first)
    writer.step()
    # From a row that is being written.
    second = Text([*system, 9], 3)
    writer.add(second)
    assert writer.work.reused_tokens == len(system)
    run(writer, [])
    # From rows that have ended; the last token of a prompt is read, for its logits.
    third, whole = Text([*system, 11, 12, 13], 5), Text([*system, 7, 8], 2)
    run(writer, [third])
    assert writer.work.reused_tokens == 2 * len(system)
    run(writer, [whole])
    assert writer.work.reused_tokens == 3 * len(system) + 1
    # What was written is the beginning of a conversation's next turn.
    turn = Text([*first.ids, 20, 21], 4)
    run(writer, [turn])
    assert writer.work.reused_tokens == 3 * len(system) + 1 + len(first.ids) - 1
    # Too short to be worth it.
    run(writer, [Text([*system[: LEAST_REUSED - 1], 3, 3], 1)])
    assert writer.work.reused_tokens == 3 * len(system) + 1 + len(first.ids) - 1
    for text in (first, second, third, whole, turn):
        assert text.new == counted(text.ids[: text.prompt], text.most)


def test_a_call_that_fails_fails_alone() -> None:
    class Failing(Strict):
        def __call__(self, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor, caches: Any) -> Any:
            found = super().__call__(ids, positions, kept, caches)
            if (ids == 49).any():
                caches[0].scatter_(2, positions[:, None, :, None], float("nan"))
                raise MemoryError("no memory")
            return found

    def without(text: Text) -> Text:
        return Text([one % 49 for one in text.ids], text.most)

    writer = scheduler(Failing(), rows=8)
    texts = [without(Text(prompt(9, number), 6)) for number in range(8)]
    bad = Text([*prompt(9, 30)[:8], 49], 6)
    run(writer, [*texts[:3], bad, *texts[3:]])
    assert isinstance(bad.error, MemoryError) and not bad.new
    written = [text for text in texts if text.error is None]
    # A text that comes to the token 49 by itself fails in its turn, and no other.
    assert all(text.new == counted(text.ids[:9], 6) for text in written) and len(written) >= 6
    assert all(49 in text.new for text in texts if text.error is not None)


def test_a_text_that_cannot_go_on_fails_alone() -> None:
    class Broken(Text):
        def take(self, logits: torch.Tensor) -> bool:
            raise ZeroDivisionError("no token")

    writer = scheduler()
    broken, good = Broken(prompt(4), 5), Text(prompt(6), 5)
    run(writer, [broken, good])
    assert isinstance(broken.error, ZeroDivisionError) and good.new == counted(good.ids[:6], 5)


def test_a_request_that_is_dropped_leaves_the_others_as_they_are() -> None:
    for dropped in range(4):
        writer = scheduler(budget=8)
        texts = [endless(length, 30) for length in (3, 5, 40, 50)]
        for text in texts:
            writer.add(text)
        writer.step()
        writer.step()
        writer.drop(texts[dropped])
        run(writer, [Text(prompt(7, 7), 4)])
        for number, text in enumerate(texts):
            assert (text.new == counted(text.ids[: text.prompt], 30)) == (number != dropped)


def test_no_memory_for_the_cache_is_named() -> None:
    with pytest.raises(ArtifactFailedError, match="there is no memory for a cache of .* tokens; give a smaller"):
        Slots(INFO, 4, 2**45)


def test_rows_given_back_are_forgotten_when_others_need_them() -> None:
    """The least recently used goes first."""
    slots = Slots(INFO, 2, 512)
    one, two, three = (prompt(30, seed) for seed in range(3))
    for ids in (one, two):
        assert slots.add(60, ids) == 0
        slots.writes(0, 30)
        slots.read(0, ids)
        slots.remove_last(forget=False)
    assert slots.add(60, one) == 29
    slots.read(0, one[29:])
    slots.remove_last(forget=False)
    assert slots.add(60, three) == 0
    assert slots.add(60, two) == 0
    slots.remove_last(forget=True)
    slots.remove_last(forget=True)
    assert slots.add(60, two) == 0
