"""Send a pool ten times more requests than it can answer, and check what happens to the requests and to the memory.

The exit code is 1 if an accepted request got no answer or a wrong one, if a refusal was not a PoolFullError, if the
queue was never full, or if memory grew by more than 64 MB after the first fifth (the median of the later half against
that of the earlier half). See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any

import torch

import runtime
from benchmarks.harness import machine
from runtime.serving.pool import Pool
from runtime.session import Session

TIMES = 10
KINDS = 32
LONGEST = 64
# Batches of ever other sizes: memory rises and falls by about as much.
ALLOWED_GROWTH_MB = 64


class Asked:
    """Requests whose answers are known, and what became of those that were asked."""

    def __init__(self, session: Session) -> None:
        generator = torch.Generator().manual_seed(0)
        spec = next(spec for spec in session.manifest.inputs if spec.name == "input_ids")
        most = spec.values.maximum if spec.values else 100
        lengths = torch.randint(1, LONGEST + 1, (KINDS,), generator=generator).tolist()
        self.inputs = [{"input_ids": torch.randint(most // 2, most, (1, n), generator=generator)} for n in lengths]
        self._known = [session(**inputs) for inputs in self.inputs]
        self._bound = session.manifest.tolerance.max_error
        self._lock = threading.Lock()
        self.became: Counter[str] = Counter()

    def ask(self, pool: Pool, number: int) -> None:
        """Submit the request of that number."""
        kind = number % KINDS
        try:
            future = pool.submit(self.inputs[kind])
        except runtime.ExportedModelError as error:
            self._count(f"refused: {type(error).__name__}")
            return
        self._count("accepted")
        future.add_done_callback(lambda future: self._count(self._judged(kind, future)))

    def _judged(self, kind: int, future: Future[Any]) -> str:
        if future.exception() is not None:
            return f"failed: {type(future.exception()).__name__}"
        for name, expected in self._known[kind].items():
            answer = future.result()[name]
            # Written so that NaN counts.
            if not float((answer - expected).abs().max()) <= self._bound * float(expected.abs().max()):
                return "wrong"
        return "right"

    def _count(self, what: str) -> None:
        with self._lock:
            self.became[what] += 1


def rate_alone(inputs: Sequence[dict[str, torch.Tensor]], pool: Pool, seconds: float, capacity: int) -> float:
    """Answers a second while the queue is kept half full."""
    begun, number = time.monotonic(), 0
    pending: deque[Future[Any]] = deque()
    while time.monotonic() - begun < seconds:
        pending.append(pool.submit(inputs[number % KINDS]))
        number += 1
        if len(pending) > capacity // 2:
            pending.popleft().result()
    for future in pending:
        future.result()
    return number / (time.monotonic() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--capacity", type=int, default=256, help="rows in the queue")
    options = parser.parse_args()
    session = runtime.load(options.artifact, threads=1)
    with Pool(session, capacity=options.capacity) as pool:
        asked = Asked(session)
        rate = rate_alone(asked.inputs, pool, max(1.0, options.seconds / 10), options.capacity)
        before = pool.statistics()
        samples: list[float] = []
        begun, number = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < options.seconds:
            if passed >= len(samples) * options.seconds / 20:
                samples.append(machine.resident_bytes() / 2**20)
            for _ in range(min(64, int(passed * rate * TIMES) - number)):
                asked.ask(pool, number)
                number += 1
            time.sleep(0.0005)
        after = pool.statistics()
    samples.append(machine.resident_bytes() / 2**20)
    report(options, rate, number / options.seconds, after.answered - before.answered, asked.became, samples)
    print(f"latency of the answered: median {after.latency_ms_median:.0f} ms, p99 {after.latency_ms_p99:.0f} ms")


def report(
    options: Any, rate: float, offered: float, answered: int, became: Counter[str], samples: list[float]
) -> None:
    """Print what became of the requests; leave with 1 if a promise was broken."""
    wrong = became["wrong"]
    lost = became["accepted"] - became["right"] - wrong
    named = all(what == "refused: PoolFullError" for what in became if what.startswith("refused"))
    settled = samples[len(samples) // 5 :]
    growth = median(settled[len(settled) // 2 :]) - median(settled[: len(settled) // 2])
    print(f"{Path(options.artifact).name}: {rate:.0f} requests a second when the queue is kept half full")
    print(
        f"for {options.seconds:g} s offered {offered:.0f} a second, {offered / rate:.1f} times that; "
        f"queue of {options.capacity} rows"
    )
    print(f"answered meanwhile {answered / options.seconds:.0f} a second")
    print(", ".join(f"{count} {what}" for what, count in sorted(became.items())))
    print(f"of {became['accepted']} accepted requests {lost} lost, {wrong} wrong")
    print(
        f"memory after the first fifth {min(settled):.0f} to {max(settled):.0f} MB; its median grew by {growth:+.1f} MB"
    )
    if lost or wrong or not named or not became["refused: PoolFullError"] or growth > ALLOWED_GROWTH_MB:
        sys.exit("FAILED")


if __name__ == "__main__":
    main()
