"""Memory of a pool of four workers against a pool of one: both have one copy of the weights.

For each artifact, prints the resident memory of fresh processes in the middle of their work, and the ratio; the exit
code is 1 if a ratio is above 1.25. Each process answers the same requests of up to 128 tokens, in batches within a
budget of 1,024 tokens (8 x 128), for the given seconds. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import torch

import runtime
from benchmarks.harness import machine
from exporter.verification.subprocesses import module
from runtime.serving.pool import Pool

MOST = 1.25
BUDGET = 8 * 128


def work(artifact: str, workers: int, seconds: float) -> tuple[float, float]:
    """In a fresh process: resident megabytes after loading, and the most while the pool works."""
    session = runtime.load(artifact, threads=1)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        {"input_ids": torch.randint(1000, 20000, (1, int(length)), generator=generator)}
        for length in torch.randint(8, 129, (64,), generator=generator)
    ]
    loaded, most = machine.resident_bytes() / 2**20, 0.0
    begun, number = time.monotonic(), 0
    with Pool(session, workers=workers, max_tokens=BUDGET) as pool:
        pending = deque(pool.submit(inputs[index % 64]) for index in range(48))
        while time.monotonic() - begun < seconds:
            pending.popleft().result()
            pending.append(pool.submit(inputs[number % 64]))
            number += 1
            most = max(most, machine.resident_bytes() / 2**20)
    return loaded, most


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifacts", nargs="+")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workers is not None:
        print(json.dumps(work(options.artifacts[0], options.workers, options.seconds)))
        return
    failed = False
    for artifact in options.artifacts:
        most = {}
        for workers in (1, 4):
            command = [*module("benchmarks.experiments.pool_memory"), artifact, "--workers", str(workers)]
            command += ["--seconds", str(options.seconds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            loaded, most[workers] = json.loads(done.stdout)
        ratio = most[4] / most[1]
        failed |= not ratio <= MOST
        print(
            f"{Path(artifact).name}: {loaded:.0f} MB after loading; at most {most[1]:.0f} MB with 1 worker, "
            f"{most[4]:.0f} MB with 4, ratio {ratio:.2f}",
            flush=True,
        )
    if failed:
        sys.exit(f"FAILED: more than {MOST}")


if __name__ == "__main__":
    main()
