"""Is TorchScript's other executor faster, or none? What docs/decisions/serving.md says of executors.

Usage: python -m benchmarks.experiments.executor FILE ...

For each artifact and each setting, in a process of its own, in turn: seconds of `runtime.load` with its warm-up, and
the median milliseconds of a call at 1x32, 1x128 and 8x128. The settings: optimised after profiling (PyTorch's default),
optimised without profiling, and the graph as it is. The warm-up has the calls that a setting needs.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import tables
from exporter.verification.subprocesses import script

ROUNDS = 3
SHAPES = ((1, 32), (1, 128), (8, 128))
# Name → whether TorchScript optimises, whether it profiles first, calls of the warm-up.
SETTINGS = {"profiled": (True, True, 3), "optimised": (True, False, 3), "as it is": (False, True, 1)}


def measure(path: str, setting: str) -> list[float]:
    import torch

    import runtime

    optimise, profiling, calls = SETTINGS[setting]
    torch._C._jit_set_profiling_executor(profiling)
    torch._C._jit_set_profiling_mode(profiling)
    start = time.perf_counter()
    session = runtime.load(path, threads=2, warmup=False)
    execution = dataclasses.replace(session.manifest.execution, optimized_execution=optimise, warmup_calls=calls)
    session.manifest = dataclasses.replace(session.manifest, execution=execution)
    session.warm_up()
    found = [time.perf_counter() - start]
    for shape in SHAPES:
        ids = torch.randint(1000, 2000, shape)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            session(input_ids=ids)
            times.append(time.perf_counter() - start)
        found.append(1000 * statistics.median(times[3:]))
    return found


def main(paths: list[str]) -> None:
    runs: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(ROUNDS):
        for path in paths:
            for setting in SETTINGS:
                command = [*script(Path(__file__)), "--one", path, setting]
                environment = os.environ | {"OMP_NUM_THREADS": "2"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                runs.setdefault((path, setting), []).append(json.loads(done.stdout.splitlines()[-1]))
    body = []
    for (path, setting), found in runs.items():
        load, *calls = (statistics.median(column) for column in zip(*found, strict=True))
        body.append([f"{Path(path).name}, {setting}", f"{load:.2f}", *(f"{call:.2f}" for call in calls)])
    shapes = [f"{batch}x{length}, ms" for batch, length in SHAPES]
    print(tables.plain(["", "load, s", *shapes], body))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3])))
    elif sys.argv[1:]:
        main(sys.argv[1:])
    else:
        sys.exit(__doc__)
