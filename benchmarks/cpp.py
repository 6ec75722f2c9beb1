"""`python -m benchmarks.cpp`: the speed of the C++ library: start, steady calls, and the overhead of Session::run.

Needs the programs of `make cpp-build`, and bert-base with seeded random weights (made in build/bench as for
`make bench`). Writes docs/benchmarks/cpp.json, .md and .svg. Before anything is timed, the outputs of C++ are compared
with those of Python.

Three measurements, in rounds that take turns:
- From process start to the first output at 1x32, with files in the page cache: the C++ example worker, which is
  spawned, sent a line and read; against Python processes with this project's runtime, OpenVINO and ONNX Runtime.
- A call at 1x32 in a warm process: `exported-model bench` against the Python runtime.
- `Session::run` against the module's `forward` alone, in turn within one process.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy

from benchmarks.harness import machine, places, reports, tables
from benchmarks.harness.charts import bars
from benchmarks.harness.contenders import Job
from benchmarks.harness.files import job_of, prepare
from benchmarks.harness.process import Worker
from benchmarks.harness.rows import CONTENDERS, ROWS, Precision, Settings
from exporter.verification import subprocesses

THREADS = 2
WORKER = places.ROOT / "build/cpp-worker/worker"
PROGRAM = places.ROOT / "build/cpp/exported-model"
CPP = "C++"


def job(contender: str, precision: Precision) -> Job:
    """The files of a contender at bert-base/1x32, made where they are missing."""
    (row,) = (row for row in ROWS if row.name == "bert-base/1x32" and row.precision == precision)
    return job_of(row, CONTENDERS[contender], Settings(1, 0.5, 3, THREADS))


def cpp_start(artifact: str, request: str) -> tuple[float, list[list[float]]]:
    """Seconds from spawning the worker to its first answer, and the answer."""
    start = time.monotonic()
    command = [str(WORKER), artifact, "--threads", str(THREADS), "--workers", "1"]
    # clean start: a program in C++
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        seconds = time.monotonic() - start
        process.stdin.close()
    return seconds, json.loads(line)["outputs"]["logits"]


def python_start(of: Job, home: str) -> float:
    """The same for a Python process."""
    with Worker(of, home) as worker:
        seconds: float = worker.ask("start")["answered"] - worker.spawned
    return seconds


def cpp_call(artifact: str, seconds: float) -> tuple[float, float]:
    """Median milliseconds of Session::run and of forward alone, in one process."""
    command = [
        str(PROGRAM),
        "bench",
        artifact,
        "--shape",
        "1x32",
        "--threads",
        str(THREADS),
        "--seconds",
        str(seconds),
        "--raw",
    ]
    # clean start: a program in C++
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    medians = [float(line.split()[3]) for line in output.splitlines() if re.match(r"Session::run|forward", line)]
    return medians[0], medians[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpp", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of steady calls in a round (%(default)s)")
    options = parser.parse_args()
    prepare("bert-base", THREADS)
    starts = {
        "Python, this project": (job("onednn", "bf16"), "main"),
        "Python, OpenVINO bf16": (job("openvino", "bf16"), "peers"),
        "Python, ONNX Runtime fp32": (job("onnxruntime", "fp32"), "peers"),
    }
    python, _ = starts["Python, this project"]
    artifact = python.files["artifact"]
    with numpy.load(python.inputs) as arrays:
        names = ("input_ids", "attention_mask", "token_type_ids")
        request = json.dumps({"id": 1, "inputs": {name: arrays[f"0/{name}"].tolist() for name in names}})
    _compare(artifact, request)

    start_s: dict[str, list[float]] = {name: [] for name in (CPP, *starts)}
    calls_ms: dict[str, list[float]] = {"C++, Session::run": [], "C++, forward alone": [], "Python, Session": []}
    with Worker(python, "main") as steady:
        steady.ask("load")
        steady.hold()
        for number in range(options.rounds):
            start_s[CPP].append(cpp_start(artifact, request)[0])
            for name, (of, home) in starts.items():
                start_s[name].append(python_start(of, home))
            ours, forward = cpp_call(artifact, options.seconds)
            steady.release()
            seconds = steady.ask("time", seconds=options.seconds, least=3)["seconds"]
            steady.hold()
            for name, found in zip(calls_ms, (ours, forward, 1000 * statistics.median(seconds)), strict=True):
                calls_ms[name].append(found)
            last = {name: f"{found[-1]:.2f}" for name, found in (start_s | calls_ms).items()}
            print(f"round {number + 1}: " + ", ".join(f"{name} {found}" for name, found in last.items()), flush=True)
    result = gather(start_s, calls_ms, options.rounds)
    reports.save_raw(places.OUTPUT, "cpp", result)
    report(result)


def _compare(artifact: str, request: str) -> None:
    """End unless C++ answers as Python does, to the printed digit."""
    code = (
        "import json, sys, runtime, torch\nsession = runtime.load(sys.argv[1], threads=2)\n"
        "inputs = {name: torch.tensor(value) for name, value in json.loads(sys.argv[2])['inputs'].items()}\n"
        "print(json.dumps(session(**inputs)['logits'].tolist()))"
    )
    done = subprocess.run(
        [*subprocesses.python(code), artifact, request],
        capture_output=True,
        text=True,
        check=True,
        env=places.environment(THREADS),
    )
    expected, found = json.loads(done.stdout), cpp_start(artifact, request)[1]
    if found != expected:
        sys.exit(f"C++ answers {found}, Python {expected}; nothing was timed")
    print(f"C++ and Python answer {found}")


def gather(start_s: dict[str, list[float]], calls_ms: dict[str, list[float]], rounds: int) -> dict[str, Any]:
    """Every figure, with medians and ratios."""
    # Of each round, since the machine's noise is that of the moment.
    ours = calls_ms["C++, Session::run"]
    ratios = {
        words: statistics.median(a / b for a, b in zip(ours, calls_ms[other], strict=True))
        for words, other in (("to Python", "Python, Session"), ("to forward alone", "C++, forward alone"))
    }
    return {
        "question": "bert-base, bf16, onednn, 1x32: seconds from process start to first answer; milliseconds a call",
        "machine": machine.description(),
        "threads": THREADS,
        "rounds": rounds,
        "first_answer_median_s": {name: statistics.median(found) for name, found in start_s.items()},
        "call_median_ms": {name: statistics.median(found) for name, found in calls_ms.items()},
        "session_run_ratio_median": ratios,
        "first_answer_s": start_s,
        "call_ms": calls_ms,
    }


def report(result: Mapping[str, Any]) -> None:
    """Write the page and the picture."""
    starts = result["first_answer_median_s"]
    first = [[name, f"{seconds:.2f}"] for name, seconds in starts.items()]
    calls = [[name, f"{milliseconds:.2f}"] for name, milliseconds in result["call_median_ms"].items()]
    ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in result["session_run_ratio_median"].items())
    print(tables.plain(["", "first answer, s"], first), tables.plain(["", "a call, ms"], calls), sep="\n")
    print(f"Session::run {ratios}")
    lines = [
        "# C++ against Python",
        "",
        f"`make bench-cpp`: {result['question']}; {result['threads']} threads, medians of {result['rounds']} rounds.",
        f"Machine: {result['machine']}.",
        "",
        "![Process start to first answer, seconds](cpp.svg)",
        "",
        *tables.table(["from process start", "first answer, s"], first),
        "",
        *tables.table(["in a warm process", "a call, ms"], calls),
        "",
        f"`Session::run`, the median of each round's ratio: {ratios}.",
    ]
    picture = bars("bert-base: process start to first answer (lower is better)", {"seconds": starts})
    reports.save_page(places.OUTPUT, "cpp", "\n".join(lines) + "\n", picture)


if __name__ == "__main__":
    main()
