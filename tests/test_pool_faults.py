"""Faults in production: whatever is raised, sent or replaced, accepted requests are not lost or answered wrongly."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.verification.subprocesses import module
from runtime import Session, load
from runtime.errors import DeadlineError, PoolClosedError, PoolError, PoolFullError
from runtime.host import requirements
from runtime.serving.pool import Pool
from tests.conftest import run, run_python
from tests.test_pool import Slow, request


class Raising(Slow):
    """Raises a chosen error at id 299, which no real artifact can be made to do; counts its calls."""

    error: BaseException = MemoryError("no memory")

    def __call__(self, **inputs: torch.Tensor) -> Any:
        self.asked.set()
        self.gate.wait(30)
        self.calls.append(tuple(inputs["input_ids"].shape))
        if (inputs["input_ids"] == 299).any():
            raise self.error
        return self.session(**inputs)


def same(answer: Any, session: Session, **inputs: torch.Tensor) -> bool:
    """Equal up to the differences that batching causes."""
    return torch.allclose(answer["logits"], session(**inputs)["logits"], rtol=1e-4, atol=1e-5)


@pytest.fixture
def waiting(tiny_session: Session) -> Iterator[tuple[Any, Pool]]:
    """A pool of one worker that is within a call, which waits for an event."""
    session: Any = Raising(tiny_session)
    with Pool(session, workers=1, max_wait_ms=0, capacity=8) as pool:
        pool.submit(request(3))
        assert session.asked.wait(30)
        yield session, pool
        session.gate.set()


@pytest.mark.parametrize("error", [MemoryError("no memory"), SystemExit(3), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_worker_thread_that_raises(waiting: tuple[Any, Pool], error: BaseException) -> None:
    """Only the bad request gets the error; the others of its batch and later requests are answered."""
    session, pool = waiting
    session.error = error
    values = (20, 21, 299, 22, 23)
    futures = [pool.submit({"input_ids": torch.full((1, 4), value)}) for value in values]
    session.gate.set()
    for value, future in zip(values, futures, strict=True):
        if value == 299:
            assert future.exception(30) is error
        else:
            assert same(future.result(30), session.session, input_ids=torch.full((1, 4), value))
    assert same(pool(**request(6)), session.session, **request(6))
    seen = pool.statistics()
    assert (seen.requests, seen.answered, seen.failed) == (7, 6, 1)
    # Halves: one call of five, then the side with the bad one down to it, not one call a request.
    assert session.calls[1:-1] == [(5, 4), (2, 4), (3, 4), (1, 4), (2, 4)]


def test_a_callback_that_raises(waiting: tuple[Any, Pool], caplog: pytest.LogCaptureFixture) -> None:
    """Callbacks run in the worker's thread. One that raises SystemExit must not stop the other requests."""
    session, pool = waiting

    def leave(_: Future[Any]) -> None:
        raise SystemExit(1)

    futures = [pool.submit(request(4)) for _ in range(3)]
    futures[0].add_done_callback(leave)
    with caplog.at_level(logging.CRITICAL + 1):
        session.gate.set()
        assert all(same(future.result(30), session.session, **request(4)) for future in futures)
    assert same(pool(**request(6)), session.session, **request(6))


def test_what_the_caller_writes_later_is_not_computed(waiting: tuple[Any, Pool]) -> None:
    """Inputs are checked when they are queued, so later changes by the caller must have no effect."""
    session, pool = waiting
    ids = request(5)["input_ids"]
    future = pool.submit({"input_ids": ids})
    ids.fill_(10**6)
    session.gate.set()
    assert same(future.result(30), session.session, **request(5))


def test_cancelling_makes_room(waiting: tuple[Any, Pool]) -> None:
    session, pool = waiting
    futures = [pool.submit(request(3)) for _ in range(8)]
    with pytest.raises(PoolFullError):
        pool.submit(request(3))
    assert futures[2].cancel() and wait([futures[2]], timeout=5).done
    last = pool.submit(request(3))
    session.gate.set()
    assert last.result(30) and all(future.result(30) for future in futures if future is not futures[2])
    seen = pool.statistics()
    assert (seen.requests, seen.answered, seen.cancelled, seen.refused) == (10, 9, 1, 1)


def test_late_requests_make_room(waiting: tuple[Any, Pool]) -> None:
    """A queue that is full of expired requests accepts new ones."""
    session, pool = waiting
    late = [pool.submit(request(3), deadline_s=0.0) for _ in range(8)]
    last = pool.submit(request(3))
    assert all(isinstance(future.exception(0), DeadlineError) for future in late)
    session.gate.set()
    assert last.result(30) and pool.statistics().late == 8


def test_a_deadline_nearer_than_the_wait_for_others(tiny_session: Session) -> None:
    """Waiting for other requests must not make a request miss its deadline."""
    with Pool(tiny_session, workers=1, max_wait_ms=60_000) as pool:
        assert pool.submit(request(3), deadline_s=2.0).result(30)["logits"].shape == (1, 3)


def test_a_task_that_is_cancelled(waiting: tuple[Any, Pool]) -> None:
    session, pool = waiting

    async def ask() -> Any:
        task = asyncio.ensure_future(pool.answer(request(4)))
        other = asyncio.ensure_future(pool.answer(request(5)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.statistics().queued == 1
        session.gate.set()
        return await other

    assert same(asyncio.run(ask()), session.session, **request(5))
    assert session.calls == [(1, 3), (1, 5)]


def test_closing_from_a_callback_and_twice(tiny_session: Session) -> None:
    pool = Pool(tiny_session, workers=2)
    closed = threading.Event()

    def close(_: Any) -> None:
        pool.close()
        closed.set()

    pool.submit(request(4)).add_done_callback(close)
    assert closed.wait(30)
    pool.close()
    with pytest.raises(PoolClosedError):
        pool(**request(4))


def test_a_program_that_ends_without_closing_answers_what_it_accepted(tiny_artifact: Path) -> None:
    code = """
import sys, torch, runtime
from runtime.serving.pool import Pool
pool = Pool(runtime.load(sys.argv[1]), workers=1, max_wait_ms=0)
for _ in range(40):
    pool.submit({"input_ids": torch.full((1, 30), 7)}).add_done_callback(lambda f: print(len(f.result())))
"""
    done = run_python(code, tiny_artifact)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["1"] * 40, "", 0)


@pytest.mark.parametrize(
    "options",
    [
        *({"workers": 0}, {"max_tokens": 0}, {"capacity": 0}, {"max_wait_ms": float("nan")}),
        *({"workers": True}, {"workers": 2.0}, {"max_tokens": "9"}, {"capacity": 1.5}, {"max_wait_ms": "2"}),
    ],
)
def test_numbers_that_are_too_small_or_none(tiny_session: Session, options: dict[str, Any]) -> None:
    with pytest.raises(PoolError, match=next(iter(options))):
        Pool(tiny_session, **options)


@pytest.mark.fresh
def test_threads_of_a_call_are_those_of_the_session(tiny_artifact: Path) -> None:
    """A pool's threads use the session's thread count: none starts more OpenMP threads."""
    code = """
import os, sys, torch, runtime
from runtime.serving.pool import Pool
session = runtime.load(sys.argv[1], threads=1)
before = set(os.listdir("/proc/self/task"))
with Pool(session, workers=3, max_wait_ms=0) as pool:
    for future in [pool.submit({"input_ids": torch.full((1, 200 + i % 9), 7)}) for i in range(60)]:
        future.result()
    # Those that are new, and not the difference of two counts: a thread of the loading may still be ending.
    print(len(set(os.listdir("/proc/self/task")) - before))
"""
    assert run_python(code, tiny_artifact).stdout.split() == ["3"]


# ---- Another artifact ----


@pytest.fixture
def two(tiny_folder: Callable[..., Path], exported: Callable[..., Any], copy_of: Callable[[Path], Path]) -> list[Path]:
    """Copies of two artifacts with the same inputs and different outputs, to be replaced."""
    folders = [tiny_folder("bert", "text-classification", num_labels=labels) for labels in (3, 4)]
    paths = []
    for number, folder in enumerate(folders):
        copied = copy_of(Path(exported(folder, backend="plain").output))
        paths.append(copied.rename(copied.with_name(f"{number}.pt")))
    return paths


def test_a_session_is_replaced_under_load(two: list[Path]) -> None:
    """Every request is answered, by the session that it was accepted for."""
    old, new = map(load, two)
    answered: dict[str, int] = {"old": 0, "new": 0}
    with Pool(old, workers=2, max_wait_ms=1) as pool:
        replaced, enough = threading.Event(), threading.Event()
        failures: list[Any] = []

        def ask(thread: int) -> None:
            number = 0
            while answered["new"] < 40 and number < 5000:
                number += 1
                inputs = request((number + thread) % 30 + 1, first=thread)
                late = replaced.is_set()
                found = pool(**inputs)
                which = "old" if found["logits"].shape[1] == 3 else "new"
                answered[which] += 1
                if answered["old"] >= 40:
                    enough.set()
                if (late and which == "old") or not same(found, old if which == "old" else new, **inputs):
                    failures.append((late, which))

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        pool.replace(new)
        replaced.set()
        for thread in threads:
            thread.join()
        seen = pool.statistics()
    assert failures == [] and min(answered.values()) >= 40
    assert seen.failed == seen.refused == 0 and seen.answered == seen.requests


def test_what_was_accepted_for_the_old_session_is_answered_by_it(waiting: tuple[Any, Pool], two: list[Path]) -> None:
    session, pool = waiting
    before = pool.submit(request(4))
    pool.replace(load(two[1]))
    after = pool.submit(lambda serving: request(4) if len(serving.manifest.labels) == 4 else {})
    session.gate.set()
    assert before.result(30)["logits"].shape == (1, 3) and after.result(30)["logits"].shape == (1, 4)


@pytest.mark.parametrize("how", ["renamed over", "overwritten", "deleted"])
def test_the_file_is_not_needed_after_loading(two: list[Path], how: str) -> None:
    """The file is not mapped into memory: changing it does not change the outputs of sessions that loaded it."""
    session = load(two[0])
    expected = session(**request(9))["logits"].clone()
    if how == "renamed over":
        two[1].replace(two[0])
    elif how == "overwritten":
        size = two[0].stat().st_size
        with open(two[0], "r+b") as file:
            file.write(os.urandom(size))
    else:
        two[0].unlink()
    assert str(two[0]) not in Path("/proc/self/maps").read_text()
    with Pool(session, workers=2) as pool:
        for future in [pool.submit(request(9)) for _ in range(8)]:
            assert torch.allclose(future.result(30)["logits"], expected, rtol=1e-4, atol=1e-5)


# ---- The queue, flooded ----


def test_a_flooded_queue(tiny_artifact: Path) -> None:
    """benchmarks/flood.py (`make flood`) in a short form; it compares every answer."""
    done = run([*module("benchmarks.flood"), tiny_artifact, "--seconds", "3", "--capacity", "64"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PoolFullError" in done.stdout and "0 lost, 0 wrong" in done.stdout


# ---- Processors ----

_VERSION_2 = {"fs/a/b/cpu.max": "400000 100000", "fs/a/cpu.max": "250000 100000", "fs/cpu.max": "max 100000"}
_VERSION_1 = {"fs/cpu/a/cpu.cfs_quota_us": "300000", "fs/cpu/a/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("own", "files", "count"),
    [
        ("0::/", {"fs/cpu.max": "max 100000"}, 99),
        ("0::/", {"fs/cpu.max": "250000 100000"}, 2),
        ("0::/", {"fs/cpu.max": "50000 100000"}, 1),
        ("0::/", {"fs/cpu.max": "odd"}, 99),
        ("0::/a/b", _VERSION_2, 2),  # the smallest of its own and of those above
        ("0::/outside/of/the/container", {"fs/cpu.max": "500000 100000"}, 5),
        ("5:memory:/a\n4:cpu,cpuacct:/a\n0::/", _VERSION_1, 3),
        ("4:cpu:/a", {**_VERSION_1, "fs/cpu/a/cpu.cfs_quota_us": "-1"}, 99),
        (None, {"fs/cpu.max": "250000 100000"}, 99),
    ],
)
def test_processors_by_control_group(
    own: str | None, files: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in ({"own": own} if own else {}).items() | files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(requirements, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(requirements, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(99), raising=False)
    assert requirements.usable_processors() == count
