"""One contender in a process of its own: it loads, is compared with eager fp32, and is timed on request.

    {"do": "load"}    → the variant kept, and how many tokens are those of eager fp32
    {"do": "measure"} → one row, a long prompt and rows together, once each
    {"do": "start"}   → moments (CLOCK_MONOTONIC) of the first token, and memory, of a process that did nothing else

Needs only what the contender needs, and psutil.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.generate.contenders import RefusedError, Write, Writers, Written
from benchmarks.generate.prompts import read_prompts
from benchmarks.generate.rows import COMPARED, LEAST_EQUAL, NEW, Job, Precision
from benchmarks.harness import machine
from benchmarks.harness.worker import serve

# What each module imports before anything is loaded.
_FRAMEWORKS = {
    "exported": "torch",
    "eager": "transformers",
    "openvino": "openvino_genai",
    "onnx": "onnxruntime_genai",
    "llamacpp": "xllamacpp",
    "ctranslate2": "ctranslate2",
}


class Worker:
    """A job and what was loaded for it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.prompts = read_prompts(job.prompts)
        importlib.import_module(_FRAMEWORKS[job.module])
        self.imported = time.monotonic()
        self.resident_imported = machine.resident_bytes()
        self.write: Write | None = None

    def load(self) -> dict[str, Any]:
        """Load every variant, keep the one that writes fastest, compare its ids."""
        try:
            makers = self._writers()
        except RefusedError as error:
            return {"status": "missing", "reason": str(error)}
        speeds: dict[str, float] = {}
        for name, make in makers.items():
            self.write = make()
            if len(makers) > 1:
                self._one_row()
                speeds[name] = max(self._one_row() for _ in range(2))
        best = max(speeds, key=speeds.__getitem__) if speeds else next(iter(makers))
        if best != list(makers)[-1]:
            self.write = None
            self.write = makers[best]()
        short, written = self.prompts.short, self.prompts.written
        alone = _equal(self._call(short[:1], COMPARED).ids[0], written[0])
        together = [_equal(found, right) for found, right in zip(self._call(short, COMPARED).ids, written, strict=True)]
        entry = {"variant": best, "equal": alone, "equal_together": together}
        if speeds:
            entry["variants"] = {name: round(speed, 1) for name, speed in speeds.items()}
        if too_few([alone, *together], self.job.precision):
            return {"status": "wrong", "reason": f"{alone} of {COMPARED} tokens alone, {together} together", **entry}
        self.measure()
        return {"status": "right", **entry}

    def measure(self) -> dict[str, float]:
        """Once each: tokens per second of one row and of several, milliseconds to the first token of two prompts."""
        one = self._call(self.prompts.short[:1], NEW + 1)
        long = self._call([self.prompts.long], 1)
        together = self._call(self.prompts.short, NEW + 1)
        return {
            "tokens": speed_of(one),
            "prompt_ms": 1000 * one.moments[0][0],
            "long_prompt_ms": 1000 * long.moments[0][0],
            "tokens_together": speed_of(together),
        }

    def start(self) -> dict[str, Any]:
        """The first token of a fresh process, then the most memory that all measurements take."""
        self.write = next(iter(self._writers().values()))()
        self._call(self.prompts.short[:1], 1)
        answered = time.monotonic()
        self.measure()
        return {
            "imported": self.imported,
            "answered": answered,
            "resident_imported": self.resident_imported,
            "peak": machine.peak_bytes(),
        }

    def _writers(self) -> Writers:
        module = importlib.import_module(f"benchmarks.generate.contenders.{self.job.module}")
        found: Writers = module.writers(self.job)
        if self.job.variant is not None:
            found = {self.job.variant: found[self.job.variant]}
        return found

    def _one_row(self) -> float:
        return speed_of(self._call(self.prompts.short[:1], NEW + 1))

    def _call(self, prompts: Sequence[Sequence[int]], count: int) -> Written:
        assert self.write is not None
        found = self.write(prompts, count)
        for rows in (found.ids, found.moments):
            if [len(row) for row in rows] != [count] * len(prompts):
                raise RuntimeError(f"{[len(row) for row in rows]} tokens or moments instead of {count} of each row")
        if any(row != sorted(row) or row[0] <= 0 for row in found.moments):
            raise RuntimeError("tokens that came before the one in front of them")
        return found


class Memory:
    """How fast memory is read, by the fastest of three operators of PyTorch; writes nothing."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.threads)
        self.numbers = torch.ones(2**14, 2**14)
        self.factor = torch.ones(2**14)

    def load(self) -> dict[str, Any]:
        """Touch the memory."""
        self.measure()
        return {"status": "right", "variant": "reads"}

    def measure(self) -> dict[str, float]:
        """The best of some reads."""

        def seconds(read: Any) -> float:
            start = time.perf_counter()
            read()
            return time.perf_counter() - start

        reads = (self.numbers.sum, self.numbers.amax, lambda: self.numbers @ self.factor)
        best = min(seconds(read) for read in reads for _ in range(3))
        return {"bytes_per_s": self.numbers.nbytes / best}


def too_few(equal: Sequence[int], precision: Precision) -> bool:
    """Whether too few first tokens are those of eager fp32: in any row, or in fewer bits in the middle one.

    With weights of 8 bits a row whose best two tokens are nearly equal may begin with the other one.
    """
    found = min(equal) if precision in ("fp32", "bf16") else statistics.median(equal)
    return found < LEAST_EQUAL[precision]


def speed_of(written: Written) -> float:
    """Tokens per second from the moment on at which every row has its first one."""
    begin = max(row[0] for row in written.moments)
    end = max(row[-1] for row in written.moments)
    return sum(moment > begin for row in written.moments for moment in row) / (end - begin)


def _equal(found: Sequence[int], right: Sequence[int]) -> int:
    """How many of the first tokens are the same."""
    return next((place for place, pair in enumerate(zip(found, right, strict=True)) if pair[0] != pair[1]), len(right))


def main() -> None:
    def make(options: dict[str, Any]) -> Worker | Memory:
        job = Job(**options)
        return Memory(job) if job.module == "memory" else Worker(job)

    serve(make, ("load", "measure", "start"))


if __name__ == "__main__":
    main()
