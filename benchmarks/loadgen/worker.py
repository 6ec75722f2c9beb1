"""One system in one layout in a separate process, with LoadGen in it.

The command line has a `Job` as JSON; each command is a line of JSON, and so is each reply. An exception, also one of a
single query, ends the process, and its text is in the log. Needs only numpy, LoadGen, and what the engine needs.

    {"do": "load"}                                     → {}
    {"do": "accuracy", "strategy": {…}}                → errors against eager fp32, samples per second meanwhile
    {"do": "run", "scenario": …, "seconds": s, "rate": r, "strategy": {…}} → LoadGen's results
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.harness.worker import serve
from benchmarks.loadgen import mlperf, samples
from benchmarks.loadgen.check import is_right, judge
from benchmarks.loadgen.engines import Engine, Job, Service
from benchmarks.loadgen.mlperf import Asked, Plan, Scenario
from benchmarks.loadgen.queueing import longest_first
from benchmarks.loadgen.systems import Layout, Strategy

# Queries of Offline that wait in a system at once: more would only make its queue long to search.
WINDOW = 128


class Worker:
    """A job and the engine loaded for it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rows, self.expected = samples.load(Path(job.samples))
        self.lengths = [row["input_ids"].shape[1] for row in self.rows]
        module = importlib.import_module(f"benchmarks.loadgen.engines.{job.module}")
        self.engine: Engine = module.engine(job, self.rows)

    def load(self) -> dict[str, Any]:
        """Warm up: kernels are chosen in the first calls, for some engines at each length anew."""
        for number in range(len(self.rows)):
            self.engine.answer(number)
        return {}

    def accuracy(self, strategy: dict[str, Any]) -> dict[str, Any]:
        """Every sample once, in LoadGen's accuracy mode; this also warms up for the strategy."""
        begun = time.perf_counter()
        answers = self._asked(Plan("Offline", True, 1.0, 1.0), self._strategy(**strategy))["answers"]
        found = judge([[answers[number]] for number in range(len(self.rows))], self.expected)
        seconds = time.perf_counter() - begun
        right = is_right(found, self.job.precision)
        return found | {"right": right, "samples_per_second": len(self.rows) / seconds}

    def run(self, scenario: Scenario, seconds: float, rate: float, strategy: dict[str, Any]) -> dict[str, Any]:
        """A run in performance mode."""
        return self._asked(Plan(scenario, False, seconds, rate), self._strategy(**strategy))

    def _strategy(self, max_tokens: int | None, multiple: int) -> Strategy:
        return Strategy(Layout(self.job.streams, self.job.threads), max_tokens, multiple)

    def _asked(self, plan: Plan, strategy: Strategy) -> dict[str, Any]:
        folder = Path(self.job.logs) / f"{plan.scenario}{'-accuracy' if plan.accuracy else ''}"
        if plan.scenario == "SingleStream":
            return mlperf.run(plan, len(self.rows), self._at_once, folder)
        with closing(self.engine.service(strategy)) as service:
            ask = offline(service, self.lengths) if plan.scenario == "Offline" else server(service)
            return mlperf.run(plan, len(self.rows), ask, folder)

    def _at_once(self, queries: list[Asked]) -> None:
        for identifier, number in queries:
            mlperf.complete(identifier, self.engine.answer(number))


def server(service: Service) -> Callable[[list[Asked]], None]:
    """Queries go to the service as they come."""

    def ask(queries: list[Asked]) -> None:
        for identifier, number in queries:
            service.submit(number, _then(identifier, _nothing))

    return ask


def offline(service: Service, lengths: list[int]) -> Callable[[list[Asked]], None]:
    """All queries are there at once: they go to the service by length, a window of them at a time."""

    def ask(queries: list[Asked]) -> None:
        places = threading.Semaphore(WINDOW)
        for place in longest_first([lengths[number] for _, number in queries]):
            identifier, number = queries[place]
            places.acquire()
            service.submit(number, _then(identifier, places.release))

    return ask


def _then(identifier: int, after: Callable[[], None]) -> Callable[[Any], None]:
    """What is to be done with an answer. LoadGen waits for each, so a query that fails ends the process."""

    def done(answer: Any) -> None:
        try:
            if isinstance(answer, Exception):
                raise answer
            mlperf.complete(identifier, answer)
        # Raised in a thread of the engine's, which would swallow it.
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        after()

    return done


def _nothing() -> None:
    pass


def main() -> None:
    serve(lambda options: Worker(Job(**options)), ("load", "accuracy", "run"))


if __name__ == "__main__":
    main()
