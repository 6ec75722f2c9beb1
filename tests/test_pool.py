"""The pool: the same outputs as a session's, in batches; named errors for refusals; no accepted request is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime import Session, load
from runtime.errors import (
    ArtifactFailedError,
    DeadlineError,
    InputSizeError,
    InputValueError,
    PoolClosedError,
    PoolFullError,
)
from runtime.serving.pool import Pool


def request(length: int, rows: int = 1, first: int = 7) -> dict[str, torch.Tensor]:
    return {"input_ids": (torch.arange(rows * length).reshape(rows, length) + first) % 290}


class Slow:
    """A session that tells when it is asked and waits until it may answer; the calls it got."""

    def __init__(self, session: Session) -> None:
        self.session, self.manifest = session, session.manifest
        self.asked, self.gate = threading.Event(), threading.Event()
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, **inputs: torch.Tensor) -> Any:
        self.asked.set()
        self.gate.wait(30)
        self.calls.append(tuple(inputs["input_ids"].shape))
        if (inputs["input_ids"] == 299).any():
            raise ArtifactFailedError("the model failed", "an answer")
        return self.session(**inputs)


def slow(session: Session) -> Any:
    return Slow(session)


def test_answers_are_those_of_the_session(tiny_session: Session) -> None:
    """Requests of all lengths from eight threads, padded into batches with others."""
    with Pool(tiny_session, workers=2, max_tokens=256, max_wait_ms=5) as running:
        found: dict[int, Any] = {}

        def ask(thread: int) -> None:
            for number in range(25):
                length = (7 * number + thread) % 40 + 1
                found[25 * thread + number] = (length, running(**request(length, 1 + number % 3, thread)))

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = running.statistics()
    for key, (length, answer) in found.items():
        expected = tiny_session(**request(length, 1 + key % 25 % 3, key // 25))["logits"]
        torch.testing.assert_close(answer["logits"], expected, rtol=1e-4, atol=1e-5)
    assert (seen.requests, seen.failed, seen.queued) == (200, 0, 0)
    assert seen.batches < 200 and 0 < seen.tokens <= seen.computed_tokens
    assert 0 <= seen.queue_ms_median <= seen.latency_ms_median <= seen.latency_ms_p99


def test_outputs_along_the_sequence_are_cut_to_each_requests_length(
    tiny_folder: Callable[..., Path], exported: Callable[..., Any]
) -> None:
    session = load(exported(tiny_folder("bert", "token-classification", num_labels=3), backend="plain").output)
    waiting = slow(session)
    with Pool(waiting, workers=1, max_wait_ms=0) as running:
        first = running.submit(request(3))
        others = [running.submit(request(length)) for length in (9, 4, 20)]
        waiting.gate.set()
        for length, future in zip((9, 4, 20), others, strict=True):
            expected = session(**request(length))["logits"]
            assert future.result()["logits"].shape == (1, length, 3)
            torch.testing.assert_close(future.result()["logits"], expected, rtol=1e-4, atol=1e-5)
        first.result()


def test_similar_lengths_share_a_batch_within_the_budget(tiny_session: Session) -> None:
    waiting = slow(tiny_session)
    with Pool(waiting, workers=1, max_tokens=40, max_wait_ms=0) as running:
        futures = [running.submit(request(1))]
        assert waiting.asked.wait(30)
        futures += [running.submit(request(length)) for length in (10, 30, 11, 2, 9, 30)]
        waiting.gate.set()
        for future in futures:
            future.result(30)
    # The oldest leads: 10 with 11 and 9 (33 tokens); then 30 alone, its like would be 60; 2 joins the last.
    assert waiting.calls[:3] == [(1, 1), (3, 11), (1, 30)]
    assert sum(rows for rows, _ in waiting.calls) == 7 and all(rows * length <= 60 for rows, length in waiting.calls)


def test_a_lone_request_waits_no_longer_than_it_must(tiny_session: Session) -> None:
    with Pool(tiny_session, workers=1, max_wait_ms=1) as running:
        assert running(**request(5))["logits"].shape == (1, 3)


def test_what_is_refused_before_it_is_queued(tiny_session: Session) -> None:
    waiting = slow(tiny_session)
    with Pool(waiting, workers=1, capacity=4, max_wait_ms=0) as running:
        with pytest.raises(InputValueError):
            running.submit({"input_ids": torch.tensor([[10**6]])})
        with pytest.raises(InputSizeError):
            running.submit(request(5000))
        begun = running.submit(request(3))
        assert waiting.asked.wait(30)
        accepted = [running.submit(request(3)) for _ in range(4)]
        with pytest.raises(PoolFullError, match="the queue holds 4 rows; expected at most 4"):
            running.submit(request(3))
        waiting.gate.set()
        assert all(future.result(30)["logits"].shape == (1, 3) for future in (begun, *accepted))
    with pytest.raises(PoolClosedError):
        running.submit(request(3))


def test_one_bad_request_of_a_batch_fails_alone(tiny_session: Session) -> None:
    waiting = slow(tiny_session)
    with Pool(waiting, workers=1, max_wait_ms=0) as running:
        futures = [running.submit({"input_ids": torch.full((1, 4), value)}) for value in (20, 21, 299, 22)]
        waiting.gate.set()
        for future, value in zip(futures, (20, 21, 299, 22), strict=True):
            if value == 299:
                with pytest.raises(ArtifactFailedError):
                    future.result(30)
            else:
                assert future.result(30)["logits"].shape == (1, 3)
        assert running.statistics().failed == 1


def test_deadlines_and_cancelling(tiny_session: Session) -> None:
    waiting = slow(tiny_session)
    with Pool(waiting, workers=1, max_wait_ms=0) as running:
        begun = running.submit(request(3))
        assert waiting.asked.wait(30)
        late, cancelled, last = (running.submit(request(3), deadline_s=limit) for limit in (0.0, None, 30))
        assert cancelled.cancel()
        waiting.gate.set()
        with pytest.raises(DeadlineError, match="its turn before the deadline"):
            late.result(30)
        assert last.result(30) and begun.result(30) and cancelled.cancelled()
    assert len(waiting.calls) == 2


def test_closing_answers_all_that_was_accepted(tiny_session: Session) -> None:
    waiting = slow(tiny_session)
    running = Pool(waiting, workers=2, max_wait_ms=10_000)
    futures = [running.submit(request(length)) for length in range(1, 30)]
    waiting.gate.set()
    running.close()
    assert all(future.done() and future.result()["logits"].shape == (1, 3) for future in futures)


def test_asyncio(tiny_session: Session) -> None:
    async def ask() -> list[Any]:
        with Pool(tiny_session, workers=1) as running:
            return await asyncio.gather(*(running.answer(request(length)) for length in (3, 8, 5)))

    for length, answer in zip((3, 8, 5), asyncio.run(ask()), strict=True):
        torch.testing.assert_close(answer["logits"], tiny_session(**request(length))["logits"], rtol=1e-4, atol=1e-5)
