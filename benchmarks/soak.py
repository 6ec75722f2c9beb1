"""Check that many threads on one session get right outputs, and that memory does not grow.

The exit code is 1 if any output differs from the single-threaded one by more than the tolerance, or if memory grows by
more than 32 MB after the first tenth. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import threading

import torch

import runtime
from benchmarks.harness import machine
from runtime.session import Session

SHAPES = [(1, 1), (1, 7), (2, 16), (3, 5), (1, 33), (4, 12), (2, 40), (5, 3)]
ALLOWED_GROWTH_MB = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    session = runtime.load(options.artifact)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(1000, 20000, shape, generator=generator) for shape in SHAPES]
    alone = [session(input_ids=ids) for ids in inputs]
    bound = session.manifest.tolerance.max_error
    worst = [0.0] * options.threads
    samples: list[float] = []

    def work(session: Session, number: int) -> None:
        for call in range(options.calls):
            index = (number + call * (number + 1)) % len(inputs)
            answers = session(input_ids=inputs[index])
            for name, answer in answers.items():
                expected = alone[index][name]
                error = float((answer - expected).abs().max() / expected.abs().max())
                # Written so that NaN counts.
                worst[number] = error if not error <= worst[number] else worst[number]
            if number == 0 and call % max(1, options.calls // 20) == 0:
                samples.append(machine.resident_bytes() / 2**20)
                print(f"call {call:>6} of each thread: {samples[-1]:8.1f} MB", flush=True)

    threads = [threading.Thread(target=work, args=(session, number)) for number in range(options.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first tenth is warm-up: each thread makes its own pools and scratch memory.
    settled = samples[len(samples) // 10 + 1 :]
    growth = settled[-1] - settled[0]
    print(f"{options.threads} threads x {options.calls} calls, {len(SHAPES)} shapes")
    print(f"largest difference from the single-threaded answer: {max(worst):.1e} (tolerance {bound:g})")
    print(f"memory after warm-up: {settled[0]:.1f} MB, at the end {settled[-1]:.1f} MB, growth {growth:+.1f} MB")
    if not max(worst) <= bound or growth > ALLOWED_GROWTH_MB:
        sys.exit("FAILED")


if __name__ == "__main__":
    main()
