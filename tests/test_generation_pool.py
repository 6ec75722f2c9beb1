"""The pool for generation: each text is the one that its request has alone; named errors; nobody waits for ever."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest
import torch

from exporter import Report
from runtime import GenerationPool, Session, load
from runtime.errors import (
    ArtifactFailedError,
    DeadlineError,
    InputTaskError,
    InputTextError,
    PoolClosedError,
    PoolError,
    PoolFullError,
)
from runtime.generation.scheduler import Scheduler
from runtime.generation.slots import LEAST_REUSED
from tests.conftest import run_python
from tests.test_generation import TEXTS, made

SYSTEM = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, exported: Callable[..., Report]) -> Report:
    return exported(made(tmp_path_factory.mktemp("llama"), "llama"))


@pytest.fixture(scope="module")
def session(report: Report) -> Session:
    return load(report.output)


class Slow:
    """A session whose method `decode` tells when it is called, waits until it may go on, and may raise."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.asked, self.gate = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.bad = -1
        # How many calls are made before the next one waits for the second gate.
        self.pause_at, self.second_gate = -1, threading.Event()
        self.calls: list[tuple[int, ...]] = []

    @property
    def text(self) -> Any:
        text = self._session.text
        text._decode = self.decode
        return text

    def decode(self, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.asked.set()
        assert self.gate.wait(30)
        assert len(self.calls) != self.pause_at or self.second_gate.wait(30)
        self.calls.append(tuple(ids.shape))
        if self.error is not None and (ids == self.bad).any():
            raise self.error
        return self._session.decode(ids, *rest)


@pytest.fixture
def waiting(session: Session) -> Iterator[tuple[Slow, GenerationPool]]:
    """A pool of two rows that is within a call for one text; eight more may wait."""
    slow: Any = Slow(session)
    with GenerationPool(slow, rows=2, capacity=8) as pool:
        first = pool.submit(TEXTS[0], max_new_tokens=3)
        assert slow.asked.wait(30)
        yield slow, pool
        slow.gate.set()
        assert first.result(30)


# The same texts


def mixed(count: int) -> list[tuple[Any, dict[str, Any]]]:
    """Prompts of all kinds and lengths, with greedy, sampled and penalised texts."""
    prompts = [*TEXTS, SYSTEM, f"{SYSTEM} 東京", [{"role": "user", "content": "Who may copy?"}], "y", SYSTEM[7:40]]
    return [
        (
            prompts[number % len(prompts)],
            {
                "max_new_tokens": 1 + 7 * number % 40,
                "seed": number,
                "temperature": (0, 0.8, 1.5)[number % 3],
                "repetition_penalty": (1, 1.2)[number % 2],
                "stop": ("e", "the")[number % 2] if number % 5 == 0 else (),
                "logprobs": number % 4 == 0,
            },
        )
        for number in range(count)
    ]


def test_texts_are_those_alone(session: Session) -> None:
    """From four threads; each text equals the one that its request has alone, whatever is written beside it."""
    requests = mixed(80)
    found: dict[int, Any] = {}
    with GenerationPool(session, rows=6, max_tokens=24, cache_tokens=400) as pool:

        def ask(thread: int) -> None:
            handles = [(n, pool.submit(requests[n][0], **requests[n][1])) for n in range(thread, len(requests), 4)]
            found.update((number, handle.result(60)) for number, handle in handles)

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = pool.statistics()
    for number, (prompt, options) in enumerate(requests):
        expected = session.text.generate(prompt, **options)
        one = found[number]
        assert (one.text, one.ids, one.finish) == (expected.text, expected.ids, expected.finish), number
        assert (one.logprobs is None) == (expected.logprobs is None)
        if one.logprobs is not None:
            torch.testing.assert_close(
                torch.tensor(one.logprobs), torch.tensor(expected.logprobs), rtol=1e-4, atol=1e-4
            )
    assert (seen.requests, seen.answered, seen.failed, seen.queued, seen.writing) == (80, 80, 0, 0, 0)
    assert seen.new_tokens == sum(len(one.ids) for one in found.values())
    # Texts share calls, and equal beginnings were read once.
    assert seen.calls < seen.new_tokens and seen.reused_tokens > LEAST_REUSED
    assert 0 < seen.first_token_ms_median <= seen.latency_ms_p99 and 0 < seen.fill <= 1


def test_pieces_in_a_thread_and_in_asyncio(session: Session) -> None:
    expected = session.text.generate(TEXTS[2], max_new_tokens=30)

    async def read(pool: GenerationPool) -> list[list[str]]:
        async def pieces() -> list[str]:
            return [piece async for piece in pool.submit(TEXTS[2], max_new_tokens=30)]

        both = await asyncio.gather(pieces(), pieces())
        assert await pool.submit(TEXTS[2], max_new_tokens=30) == expected
        assert await pool.answer(TEXTS[2], max_new_tokens=30) == expected
        return list(both)

    with GenerationPool(session) as pool:
        handle = pool.submit(TEXTS[2], max_new_tokens=30)
        found = [list(handle), *asyncio.run(read(pool))]
        assert handle.done() and handle.result() == expected == pool(TEXTS[2], max_new_tokens=30)
    assert len(found[0]) > 5
    assert all("".join(pieces) == expected.text for pieces in found)


def test_a_session_in_place_of_another(report: Report, session: Session) -> None:
    slow: Any = Slow(session)
    with GenerationPool(slow, rows=2) as pool:
        before = [pool.submit(text, max_new_tokens=4) for text in TEXTS]
        assert slow.asked.wait(30)
        pool.replace(load(report.output))
        after = [pool.submit(text, max_new_tokens=4) for text in TEXTS]
        slow.gate.set()
        for text, one, other in zip(TEXTS, before, after, strict=True):
            assert one.result(30) == other.result(30) == session.text.generate(text, max_new_tokens=4)
        calls = len(slow.calls)
        pool(TEXTS[0], max_new_tokens=4)
        assert len(slow.calls) == calls


def test_a_session_used_by_several_generations_at_once(session: Session) -> None:
    """Calls from several threads, and a pool beside them, have a cache each."""
    expected = [session.text.generate(text, max_new_tokens=20) for text in TEXTS]
    found: dict[int, Any] = {}
    with GenerationPool(session) as pool:

        def ask(number: int) -> None:
            write = pool if number % 2 else session.text.generate
            found[number] = [write(text, max_new_tokens=20) for text in TEXTS]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == dict.fromkeys(range(4), expected)


# Refusals, deadlines, cancelling


def test_what_is_refused_before_it_is_queued(waiting: tuple[Slow, GenerationPool]) -> None:
    slow, pool = waiting
    for prompt, options, problem in (
        ("", {}, "the prompt is empty"),
        ("word " * 300, {}, "the prompt has .* tokens"),
        (TEXTS[2], {"max_new_tokens": 120}, "behind which there is room for"),
        (TEXTS[0], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (TEXTS[0], {"temperature": -1}, "temperature is -1"),
        (TEXTS[0], {"stop": [""]}, "stop is"),
        ([{"role": "narrator", "content": "x"}], {}, "the conversation cannot be used"),
    ):
        with pytest.raises(InputTextError, match=problem):
            pool.submit(prompt, **options)
    with pytest.raises(PoolError, match="deadline_s is 'soon'"):
        pool.submit(TEXTS[0], deadline_s="soon")  # type: ignore[arg-type]
    accepted = [pool.submit(TEXTS[0], max_new_tokens=2) for _ in range(8)]
    with pytest.raises(PoolFullError, match="the queue holds 8 requests; expected at most 8"):
        pool.submit(TEXTS[0])
    # What is cancelled gives its place back at once.
    assert accepted[3].cancel() and wait([accepted[3].future], timeout=5).done
    accepted[3] = pool.submit(TEXTS[0], max_new_tokens=2)
    slow.gate.set()
    assert all(len(one.result(30).ids) == 2 for one in accepted)
    seen = pool.statistics()
    assert (seen.requests, seen.answered, seen.cancelled, seen.refused) == (10, 9, 1, 1)
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.submit(TEXTS[0])


def test_a_request_is_cancelled_while_it_is_written(session: Session) -> None:
    slow: Any = Slow(session)
    slow.pause_at = 60
    with GenerationPool(slow, rows=2) as pool:
        cancelled, other = pool.submit(TEXTS[1], max_new_tokens=120), pool.submit(TEXTS[1], max_new_tokens=120)
        # Both are there before the first call goes on, and neither is complete at the pause.
        slow.gate.set()
        for _ in range(3):
            next(cancelled)
        assert cancelled.cancel() and cancelled.done() and not other.done()
        slow.second_gate.set()
        with pytest.raises(CancelledError):
            list(cancelled)
        with pytest.raises(CancelledError):
            cancelled.result()
        assert other.result(30) == session.text.generate(TEXTS[1], max_new_tokens=120)
        # The other was written on alone.
        assert slow.calls[-1] == (1, 1) and (2, 1) in slow.calls
        assert not other.cancel()
        assert pool.statistics().cancelled == 1


def test_a_task_that_is_cancelled(waiting: tuple[Slow, GenerationPool]) -> None:
    slow, pool = waiting

    async def ask() -> Any:
        task = asyncio.ensure_future(pool.answer(TEXTS[0], max_new_tokens=2))
        other = asyncio.ensure_future(pool.answer(TEXTS[1], max_new_tokens=2))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.statistics().queued == 1
        slow.gate.set()
        return await other

    assert len(asyncio.run(ask()).ids) == 2


def test_a_reader_that_gave_up_hurts_nobody(waiting: tuple[Slow, GenerationPool]) -> None:
    """An event loop that is closed while its text is written."""
    slow, pool = waiting
    handle = pool.submit(TEXTS[1], max_new_tokens=5)

    async def read() -> None:
        await asyncio.wait_for(anext(handle), 0.01)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(read())
    slow.gate.set()
    assert "".join(handle) == handle.result(30).text


def test_deadlines_hold_for_the_whole_text(session: Session) -> None:
    slow: Any = Slow(session)
    with GenerationPool(slow, rows=1) as pool:
        written = pool.submit(TEXTS[1], max_new_tokens=120, deadline_s=0.5)
        assert slow.asked.wait(30)
        late, last = pool.submit(TEXTS[1], deadline_s=0.0), pool.submit(TEXTS[1], max_new_tokens=3, deadline_s=30)
        threading.Event().wait(0.6)
        slow.gate.set()
        with pytest.raises(DeadlineError, match="tokens were written within .* the whole text before the deadline"):
            written.result(30)
        with pytest.raises(DeadlineError, match="the request waited"):
            list(late)
        assert last.result(30) == session.text.generate(TEXTS[1], max_new_tokens=3)
        assert (pool.statistics().late, pool.statistics().failed) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"rows": 0}, "rows is 0; expected a whole number, at least 1"),
        ({"rows": 4, "max_tokens": 3}, "max_tokens is 3; expected a whole number, at least 4"),
        ({"cache_tokens": 127}, "cache_tokens is 127; expected a whole number, at least 128"),
        ({"capacity": 1.5}, "capacity is 1.5"),
    ],
)
def test_a_pool_that_makes_no_sense(session: Session, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(PoolError, match=problem):
        GenerationPool(session, **arguments)


def test_other_files_do_not_generate(tiny_session: Session) -> None:
    with pytest.raises((InputTaskError, InputTextError)):
        GenerationPool(tiny_session)


# Faults


@pytest.mark.parametrize("error", [ArtifactFailedError("failed"), MemoryError("no memory"), SystemExit(3)])
def test_a_request_whose_calls_fail(waiting: tuple[Slow, GenerationPool], session: Session, error: Any) -> None:
    """It gets the error; the others that share its calls, and later ones, get their texts."""
    slow, pool = waiting
    expected: type[BaseException] = type(error)
    slow.error, slow.bad = error, int(session.text.encode(["~"])["input_ids"][0, -1])
    good = [pool.submit(text, max_new_tokens=6) for text in TEXTS[:2]]
    bad = pool.submit("Permission ~", max_new_tokens=6)
    good.append(pool.submit(TEXTS[2], max_new_tokens=6))
    slow.gate.set()
    assert bad.future.exception(30) is error
    with pytest.raises(expected):
        list(bad)
    slow.error = None
    for text, handle in zip(TEXTS, good, strict=True):
        assert handle.result(30) == session.text.generate(text, max_new_tokens=6)
    assert pool.statistics().failed == 1


def test_a_fault_beside_the_calls_fails_what_is_written_and_no_more(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: Any = Slow(session)
    with GenerationPool(slow, rows=2) as pool:
        first, second = pool.submit(TEXTS[0], max_new_tokens=2), pool.submit(TEXTS[1], max_new_tokens=5)
        third = pool.submit(TEXTS[1], max_new_tokens=5)
        assert slow.asked.wait(30)
        leave = Scheduler._leave

        def broken(*_arguments: Any, **_options: Any) -> None:
            monkeypatch.setattr(Scheduler, "_leave", leave)
            raise ZeroDivisionError("a row that cannot leave")

        monkeypatch.setattr(Scheduler, "_leave", broken)
        slow.gate.set()
        # The first text was complete before the fault.
        assert len(first.result(30).ids) == 2
        assert isinstance(second.future.exception(30), ZeroDivisionError)
        assert third.result(30) == session.text.generate(TEXTS[1], max_new_tokens=5)


def test_a_callback_that_raises(waiting: tuple[Slow, GenerationPool], caplog: pytest.LogCaptureFixture) -> None:
    slow, pool = waiting

    def leave(_: Any) -> None:
        raise SystemExit(1)

    handles = [pool.submit(TEXTS[0], max_new_tokens=3) for _ in range(3)]
    handles[0].future.add_done_callback(leave)
    with caplog.at_level(logging.CRITICAL + 1):
        slow.gate.set()
        assert all(len(handle.result(30).ids) == 3 for handle in handles)


def test_closing_writes_all_that_was_accepted(session: Session) -> None:
    slow: Any = Slow(session)
    pool = GenerationPool(slow, rows=2)
    handles = [pool.submit(TEXTS[0], max_new_tokens=1 + number % 4) for number in range(12)]
    closed = threading.Event()

    def close(_: Any) -> None:
        pool.close()
        closed.set()

    # From a callback, in the pool's own thread; and twice.
    handles[0].future.add_done_callback(close)
    slow.gate.set()
    assert closed.wait(30)
    pool.close()
    assert [len(handle.result(0).ids) for handle in handles] == [1 + number % 4 for number in range(12)]


@pytest.mark.fresh
def test_a_program_that_ends_without_closing_writes_its_texts(report: Report) -> None:
    done = run_python(
        """
import runtime, sys
pool = runtime.GenerationPool(runtime.load(sys.argv[1]))
pool.submit("x", max_new_tokens=9).future.add_done_callback(lambda future: print("written", len(future.result().ids)))
""",
        report.output,
    )
    assert done.returncode == 0 and done.stdout.startswith("written"), done.stderr


@pytest.mark.fresh
def test_a_forked_child_is_refused(report: Report) -> None:
    done = run_python(
        """
import os, signal, sys
import runtime
pool = runtime.GenerationPool(runtime.load(sys.argv[1], threads=1))
print(len(pool("x", max_new_tokens=2).ids), flush=True)
if (child := os.fork()) == 0:
    signal.alarm(60)
    try:
        pool.submit("x")
    except runtime.ExportedModelError as error:
        print(type(error).__name__, flush=True)
    pool.close()
    sys.exit(0)
print(os.waitpid(child, 0)[1], len(pool("x", max_new_tokens=2).ids))
""",
        report.output,
    )
    assert done.stdout.split() == ["2", "ForkError", "0", "2"], done.stderr
