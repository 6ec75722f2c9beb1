"""Artifacts of this project, as a user serves them: `runtime.load` and a `Pool`, which makes its own batches.

Strategies that round lengths up are refused (ValueError).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch

import runtime
from benchmarks.loadgen.engines import Job
from benchmarks.loadgen.queueing import Done
from benchmarks.loadgen.systems import Strategy
from runtime.serving.pool import Pool
from runtime.serving.request_queue import Outputs

# Overload is what the search for the highest rate looks for, so nothing is refused.
_CAPACITY = 2**20


class Exported:
    """A session, and each sample's tensors."""

    def __init__(self, job: Job, rows: Sequence[Mapping[str, Any]]) -> None:
        self.session = runtime.load(job.files["artifact"], threads=job.threads)
        self.streams = job.streams
        wanted = {spec.name for spec in self.session.manifest.inputs}
        self.rows = [{name: torch.from_numpy(row[name]) for name in row if name in wanted} for row in rows]

    def answer(self, number: int) -> Any:
        """One sample at once: logits of one row."""
        return self.session(**self.rows[number])["logits"][0].numpy()

    def service(self, strategy: Strategy) -> InPool:
        """What answers with that strategy."""
        if strategy.multiple != 1:
            raise ValueError("the pool pads to the longest of a batch and no further")
        return InPool(self, strategy.max_tokens)


class InPool:
    """A pool: with a budget of one token each query is a batch of its own."""

    def __init__(self, engine: Exported, max_tokens: int | None) -> None:
        self._rows = engine.rows
        self._pool = Pool(
            engine.session, workers=engine.streams, max_tokens=max_tokens or 1, max_wait_ms=0, capacity=_CAPACITY
        )

    def submit(self, number: int, done: Done) -> None:
        """Queue a sample."""

        def told(future: Future[Outputs]) -> None:
            error = future.exception()
            done(future.result()["logits"][0].numpy() if error is None else error)

        self._pool.submit(self._rows[number]).add_done_callback(told)

    def close(self) -> None:
        """End when all is answered."""
        self._pool.close()


def engine(job: Job, rows: Sequence[Mapping[str, Any]]) -> Exported:
    return Exported(job, rows)
