"""One system in the scenarios: one process per layout, of which one runs and the others are stopped.

A system that fails or whose outputs are wrong gets no more queries, and its entry says why.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.process import Process, WorkerError
from benchmarks.harness.race import LEAST_FREE_BYTES
from benchmarks.loadgen import samples
from benchmarks.loadgen.engines import Job
from benchmarks.loadgen.files import LOGS
from benchmarks.loadgen.search import RateSearch
from benchmarks.loadgen.systems import LATENCY_MS, LAYOUTS, Layout, Strategy, System, strategies

# The strategies that are compared in the Server scenario: so many of the fastest Offline, at a rate that is this share
# of what the fastest of them does Offline.
_FINALISTS, _TRIAL_SHARE = 3, 0.9

Entry = dict[str, Any]


class Running:
    """A system, its processes, and what is known of it.

    The entry: `status`, `trials` by strategy; of each scenario the `strategy` chosen and the `runs` as LoadGen gave
    them; Server also has `trials`, and `best_rate`, the highest in queries a second that held.
    """

    def __init__(self, system: System, files: dict[str, str], seconds: float) -> None:
        self.system = system
        self.entry: Entry = {"status": "timed", "trials": {}}
        self.search: RateSearch | None = None
        self._files, self._seconds = files, seconds
        self._ends = ExitStack()
        self._processes: dict[Layout, Process] = {}
        self._known: dict[str, Strategy] = {}

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def guarded(self, step: Callable[[Running], bool | None]) -> bool:
        """Do a step if nothing failed so far; whether there is more to do of it."""
        if self.entry["status"] != "timed":
            return False
        try:
            return bool(step(self))
        except WorkerError as error:
            self.entry |= {"status": "failed", "reason": str(error)}
            # One that does not answer would go on computing while others are asked.
            self._ends.close()
            print(f"{self.system.name}: failed: {error}", flush=True)
            return False

    def try_strategies(self) -> None:
        """Each strategy: are its answers right, and how fast is it in a short Offline run?"""
        for layout in LAYOUTS:
            self._start(layout)
            for strategy in strategies(self.system, layout):
                found = self._ask(strategy, "accuracy")
                if found["right"]:
                    rate = found["samples_per_second"]
                    found |= self._run(strategy, "Offline", self._seconds / 2, rate)
                    self._known[strategy.name] = strategy
                self.entry["trials"][strategy.name] = found
                self._say(f"{strategy.name}: {_words(found)}")
        if not self._known:
            self.entry |= {"status": "wrong", "reason": "no strategy's answers are near those of eager fp32"}

    def offline(self) -> None:
        """A run with the strategy that was fastest in the trials."""
        strategy, rate = self._fastest(1)[0]
        scenario = self._scenario("offline", strategy)
        scenario["runs"].append(self._run(strategy, "Offline", self._seconds, rate))
        self._say(f"Offline: {scenario['runs'][-1]['samples_per_second']:.1f} samples a second ({strategy.name})")

    def try_for_server(self) -> None:
        """The fastest strategies under the same rate of queries: which has the lowest p99?"""
        finalists = self._fastest(_FINALISTS)
        rate = _TRIAL_SHARE * finalists[0][1]
        trials = {strategy.name: self._run(strategy, "Server", self._seconds, rate) for strategy, _ in finalists}
        best = min(trials, key=lambda name: trials[name]["p99_ms"])
        self._scenario("server", self._known[best]).update(trials=trials, best_rate=None)
        self.search = RateSearch(rate)
        self._say("Server, trials: " + ", ".join(f"{name}: p99 {run['p99_ms']:.0f} ms" for name, run in trials.items()))

    def server(self) -> bool:
        """The next rate of the search; whether there was one."""
        assert self.search is not None
        rate, scenario = self.search.next(), self.entry["server"]
        if rate is None:
            return False
        found = self._run(self._known[scenario["strategy"]], "Server", 2 * self._seconds, rate)
        self.search.record(rate, found["p99_ms"] <= LATENCY_MS)
        scenario["runs"].append(found | {"rate": rate, "held": found["p99_ms"] <= LATENCY_MS})
        scenario["best_rate"] = self.search.best
        self._say(f"Server at {rate:.1f} a second: p99 {found['p99_ms']:.0f} ms")
        return True

    def single_stream(self) -> None:
        """One query after the other, each at once with all cores."""
        strategy = Strategy(LAYOUTS[0])
        scenario = self._scenario("single-stream", strategy)
        scenario["runs"].append(self._run(strategy, "SingleStream", self._seconds / 2, 1.0))
        self._say(f"SingleStream: p90 {scenario['runs'][-1]['p90_ms']:.1f} ms")

    def _fastest(self, count: int) -> list[tuple[Strategy, float]]:
        trials = self.entry["trials"]
        ranked = sorted(self._known, key=lambda name: -trials[name]["samples_per_second"])
        return [(self._known[name], trials[name]["samples_per_second"]) for name in ranked[:count]]

    def _scenario(self, name: str, strategy: Strategy) -> Entry:
        found: Entry = self.entry.setdefault(name, {"strategy": strategy.name, "runs": []})
        return found

    def _start(self, layout: Layout) -> None:
        free = machine.free_bytes()
        if free < LEAST_FREE_BYTES:
            raise WorkerError(f"only {free / 2**30:.1f} GiB of memory were free")
        system = self.system
        job = Job(
            contender=system.name,
            module=system.module,
            precision=system.precision,
            streams=layout.streams,
            threads=layout.threads,
            samples=str(samples.SAMPLES),
            logs=str(LOGS / f"{system.name}-{layout.name}"),
            files=self._files,
        )
        process = Process(job, system.home, "benchmarks.loadgen.worker", f"loadgen-{system.name}-{layout.name}")
        self._ends.enter_context(process)
        process.ask("load")
        process.hold()
        self._processes[layout] = process

    def _run(self, strategy: Strategy, scenario: str, seconds: float, rate: float) -> Entry:
        return self._ask(strategy, "run", scenario=scenario, seconds=seconds, rate=rate)

    def _ask(self, strategy: Strategy, do: str, **options: Any) -> Entry:
        process = self._processes[strategy.layout]
        process.release()
        reply = process.ask(do, strategy={"max_tokens": strategy.max_tokens, "multiple": strategy.multiple}, **options)
        process.hold()
        return reply

    def _say(self, words: str) -> None:
        print(f"{self.system.name:<12} {words}", flush=True)


def _words(found: Entry) -> str:
    errors = f"worst error {found['worst']:.1e}"
    return f"{found['samples_per_second']:.1f} samples a second, {errors}" if found["right"] else f"WRONG, {errors}"
