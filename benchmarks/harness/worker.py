"""One contender in a separate process: it loads, computes outputs, and times calls on request.

The command line has a `Job` as JSON; each command is a line of JSON, and so is each reply. An exception ends the
process, and its text is in the log. Needs only numpy and what the contender needs.

    {"do": "load"}      → errors against eager fp32, the variant kept
    {"do": "time", "seconds": s, "least": n}  → {"seconds": […]} of single calls, after one call that is not counted
    {"do": "start"}     → moments (CLOCK_MONOTONIC) of the first output, and memory, of a process that did nothing else
    {"do": "profile", "seconds": s}           → time by operator (PyTorch's contenders)
"""

from __future__ import annotations

import importlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.contenders import Job, Loaded

# Before the variants are compared: TorchScript and Inductor do their work in the first calls.
WARM_UP_CALLS = 5
WARM_UP_SECONDS = 1.0
CHOICE_ROUNDS, CHOICE_SECONDS = 3, 0.5


class Worker:
    """A job and the model loaded for it."""

    def __init__(self, job: Job) -> None:
        import numpy

        self.job = job
        with numpy.load(job.inputs) as arrays:
            self.arrays = [
                {name.split("/")[1]: arrays[name] for name in arrays.files if name.split("/")[0] == str(number)}
                for number in range(sum(name.endswith("/answer") for name in arrays.files))
            ]
        importlib.import_module(job.framework)
        if job.framework == "torch":
            import torch

            torch.set_num_threads(job.threads)
        self.imported = time.monotonic()
        self.resident_imported = machine.resident_bytes()
        self.variants = importlib.import_module(f"benchmarks.harness.contenders.{job.module}").variants(job)
        if job.variant is not None:
            self.variants = {job.variant: self.variants[job.variant]}
        self.loaded: Loaded | None = None
        self.feeds: Iterator[Any] = iter(())

    def load(self) -> dict[str, Any]:
        """Load every variant, compare its answers, keep the fastest right one."""
        from benchmarks.harness.check import is_right

        found: dict[str, tuple[Loaded, Any]] = {}
        failures: dict[str, str] = {}
        for name, make in self.variants.items():
            try:
                model = make()
                found[name] = model, self._errors(model)
            # One variant that a framework refuses leaves the others.
            except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
                if len(self.variants) == 1:
                    raise
                failures[name] = str(error).strip().splitlines()[-1][:200] if str(error).strip() else repr(error)
        if not found:
            raise RuntimeError(f"no variant works: {failures}")
        right = {name: pair for name, pair in found.items() if pair[1] is None or is_right(pair[1], self.job.precision)}
        if not right:
            name, (_, errors) = min(found.items(), key=lambda item: item[1][1]["rms_error"])
            if not math.isfinite(errors["rms_error"]):
                # JSON has no infinity.
                reason = "answers of another shape, or not finite"
                return {"status": "wrong", "errors": None, "variant": name, "reason": reason}
            return {"status": "wrong", "errors": errors, "variant": name}
        times: dict[str, list[float]] = {name: [] for name in right}
        for model, _ in right.values():
            self._keep(model)
            self._warm_up()
        if len(right) > 1:
            for _ in range(CHOICE_ROUNDS):
                for name, (model, _) in right.items():
                    self._keep(model)
                    times[name].append(statistics.median(self.timed(CHOICE_SECONDS, 3)))
        best = min(right, key=lambda name: statistics.median(times[name]) if times[name] else 0)
        self._keep(right[best][0])
        return {
            "status": "right",
            "errors": right[best][1],
            "variant": best,
            "variants_ms": {name: round(1000 * statistics.median(seen), 3) for name, seen in times.items() if seen},
            "variants_failed": failures,
        }

    def _errors(self, model: Loaded) -> Any:
        if model.array is None:
            return None
        from benchmarks.harness.check import errors

        answers = [model.array(model.call(model.feed(arrays))) for arrays in self.arrays]
        return errors(answers, [arrays["answer"] for arrays in self.arrays])

    def _keep(self, model: Loaded) -> None:
        self.loaded = model
        self.feeds = cycle([model.feed(arrays) for arrays in self.arrays])

    def _warm_up(self) -> None:
        self.timed(WARM_UP_SECONDS, WARM_UP_CALLS)

    def time(self, seconds: float, least: int) -> dict[str, list[float]]:
        """For the parent."""
        return {"seconds": self.timed(seconds, least)}

    def timed(self, seconds: float, least: int) -> list[float]:
        """Seconds of single calls, at least so many, for about so long; the first call is not counted."""
        assert self.loaded is not None
        call, clock = self.loaded.call, time.perf_counter
        call(next(self.feeds))
        found: list[float] = []
        end = clock() + seconds
        while len(found) < least or clock() < end:
            feed = next(self.feeds)
            start = clock()
            call(feed)
            found.append(clock() - start)
        return found

    def start(self) -> dict[str, Any]:
        """The first answer of a fresh process, then memory when it is warm."""
        self._keep(next(iter(self.variants.values()))())
        assert self.loaded is not None
        answer = self.loaded.call(next(self.feeds))
        if self.loaded.array is not None:
            self.loaded.array(answer)
        answered = time.monotonic()
        self._warm_up()
        return {
            "imported": self.imported,
            "answered": answered,
            "resident_imported": self.resident_imported,
            "resident": machine.resident_bytes(),
            "peak": machine.peak_bytes(),
        }

    def profile(self, seconds: float) -> dict[str, Any]:
        """By operator: its own milliseconds in one call, and how often it is called in one."""
        from torch.profiler import ProfilerActivity, profile

        calls = max(3, int(seconds / statistics.median(self.timed(0, 3))))
        assert self.loaded is not None
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(calls):
                self.loaded.call(next(self.feeds))
        # Times of the profiler are in microseconds.
        return {
            "calls": calls,
            "operators": [
                {"name": event.key, "ms": event.self_cpu_time_total / calls / 1000, "count": event.count / calls}
                for event in seen.key_averages()
            ],
        }


def serve(make: Callable[[dict[str, Any]], Any], commands: Sequence[str]) -> None:
    """Make a worker from the command line's JSON, then answer commands: each is a method of it by name."""
    # Frameworks print; the parent reads our lines only. What they print goes to the log.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = make(json.loads(sys.argv[1]))
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        assert name in commands, name
        reply = getattr(worker, name)(**command)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    serve(lambda options: Worker(Job(**options)), ("load", "time", "start", "profile"))


if __name__ == "__main__":
    main()
