"""The files that contenders load, made if they are missing or older than their sources; and a row's race.

As in `benchmarks.harness`: contenders whose text is wrong are not timed, and all take turns, the others stopped.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.generate.prompts import LONGEST, prompts_of, read_prompts
from benchmarks.generate.rows import CONTENDERS, Contender, Job, Row, Settings
from benchmarks.harness import places
from benchmarks.harness.files import NotMadeError, export_model, is_fresh, run
from benchmarks.harness.process import Process, WorkerError
from benchmarks.harness.race import Entry, Reply, loaded, take_turns
from exporter.config.request import BACKEND_CHOICES, PRECISION_CHOICES

# The example in C++, which `make cpp-build` compiles.
PROGRAM = places.ROOT / "build/cpp-worker/generate"
_ENDINGS = {"openvino": "openvino", "onnxruntime": "genai", "llamacpp": "gguf", "ctranslate2": "ctranslate2"}
_WORKER = "benchmarks.generate.worker"


def prepare(model: str, threads: int) -> None:
    """Checkpoint, prompts and eager fp32's ids; what exists stays.

    Raises:
        NotMadeError: that failed.
    """
    if not prompts_of(model).exists():
        run(f"generate-{model}-prepare", "main", ["benchmarks.generate.models", model], threads)


def job_of(row: Row, contender: Contender, threads: int) -> Job:
    """The job of a contender, its files made.

    Raises:
        NotMadeError: its environment is missing, or a file could not be made.
    """
    if not Path(places.PYTHON[contender.home]).exists():
        raise NotMadeError(f"its environment is missing: make .venv-{contender.home}/.installed")
    path = places.folder_of(row.model)
    if contender.kind == "ours":
        path = _exported(row, contender.name, threads)
    elif contender.kind == "peer":
        path = _converted(row, contender.name, threads)
    return Job(
        contender.name, contender.module, row.model, row.precision, threads, str(path), str(prompts_of(row.model))
    )


def _exported(row: Row, backend: str, threads: int) -> Path:
    if row.precision not in PRECISION_CHOICES:
        raise NotMadeError(f"this exporter has no {row.precision}")
    if backend not in BACKEND_CHOICES:
        raise NotMadeError(f"this exporter has no backend {backend}")
    options = ["--task", "text-generation", f"--{row.precision}", "--backend", backend, "--verify", "quick"]
    options += ["--max-length", str(LONGEST)]
    return export_model(row.model, places.artifact_of(row.model, row.precision, backend), options, threads)


def _converted(row: Row, peer: str, threads: int) -> Path:
    # OpenVINO rounds an fp32 file to bf16 itself.
    precision = "fp32" if (peer, row.precision) == ("openvino", "bf16") else row.precision
    path = places.artifact_of(row.model, precision, peer, _ENDINGS[peer])
    if not is_fresh(path, [places.folder_of(row.model)]):
        arguments = ["benchmarks.generate.convert", peer, row.model, precision, str(path)]
        # These ask for a newer transformers than OpenVINO's converter takes, or for gguf.
        home = "main" if peer in ("onnxruntime", "llamacpp") else "sentence"
        run(f"generate-{row.model}-{precision}-{peer}-convert", home, arguments, threads)
    return path


def run_row(row: Row, contenders: Sequence[Contender], settings: Settings) -> dict[str, Entry]:
    """Time the contenders of a row together; the entry of each by its name."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    jobs: dict[str, Job | str] = {}
    # Files first: what is exported meanwhile would only be in the way of loaded models.
    for contender in contenders:
        try:
            jobs[contender.name] = job_of(row, contender, settings.threads)
        except NotMadeError as error:
            jobs[contender.name] = str(error)
    entries: dict[str, Entry] = {}
    with ExitStack() as processes:
        running: list[Process] = []
        for name, job in jobs.items():
            entry, process = _loaded(row, job, CONTENDERS[name], processes)
            entries[name] = entry | {"run": when}
            if process is not None:
                running.append(process)
            print(f"{row.name}  {name:<12} {_words(entry)}", flush=True)
        replies, failed = take_turns(row.name, running, settings.rounds, _latest, "measure")
    for name, found in replies.items():
        if name in failed:
            entries[name] |= {"status": "failed", "reason": failed[name]}
        else:
            entries[name] |= {key: [round(reply[key], 3) for reply in found] for key in found[0]}
    return entries


def _loaded(row: Row, job: Job | str, contender: Contender, processes: ExitStack) -> tuple[Entry, Process | None]:
    if isinstance(job, str):
        return {"status": "missing", "reason": job}, None
    return loaded(lambda: Process(job, contender.home, _WORKER, _log(row, contender.name)), processes)


def _log(row: Row, name: str) -> str:
    return f"generate-{row.file}-{name}"


def _words(entry: Entry) -> str:
    if "reason" in entry:
        return f"{entry['status']}: {entry['reason']}"
    return f"{entry['variant']}" + (f", {entry['equal']} tokens as eager fp32's" if "equal" in entry else "")


def _latest(replies: Sequence[Reply]) -> str:
    return f"{replies[-1]['tokens']:.1f}" if "tokens" in replies[-1] else f"{replies[-1]['bytes_per_s'] / 1e9:.1f} GB/s"


def run_starts(row: Row, entries: dict[str, Entry], repeats: int, settings: Settings) -> dict[str, Entry]:
    """Fresh processes of each contender that was timed, and of the program in C++ with our files."""
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        contender = CONTENDERS[name]
        if entry["status"] != "timed" or contender.kind == "floor":
            continue
        job = dataclasses.replace(job_of(row, contender, settings.threads), variant=entry["variant"])
        found[name] = _repeated([_start(row, job, contender.home) for _ in range(repeats)])
        if contender.kind == "ours" and PROGRAM.exists():
            found[f"{name}, C++"] = _repeated([_start_of_program(job) for _ in range(repeats)])
        print(f"{row.name}  {name:<12} first token after {found[name]['start_s']} s", flush=True)
    return found


def _repeated(runs: Sequence[Entry]) -> Entry:
    return {key: [run[key] for run in runs] for key in runs[0]}


def _start(row: Row, job: Job, home: str) -> Entry:
    with Process(job, home, _WORKER, _log(row, f"{job.contender}-start")) as process:
        seen = process.ask("start")
    return {
        "start_s": round(seen["answered"] - process.spawned, 3),
        "peak_mib": round((seen["peak"] - seen["resident_imported"]) / 2**20, 1),
    }


def _start_of_program(job: Job) -> Entry:
    """Its peak is that of the whole process: there is no moment at which it has only libtorch."""
    prompt = " ".join(map(str, read_prompts(job.prompts).short[0])) + "\n"
    start = time.monotonic()
    # clean start: a program in C++
    process = subprocess.Popen(
        [PROGRAM, job.path, "--max-new-tokens", "1", "--threads", str(job.threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=places.environment(job.threads),
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(prompt)
        process.stdin.close()
        line = process.stdout.readline()
        answered = time.monotonic()
        # To the end: a program that cannot write its last lines is ended by the system.
        process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not line.startswith("0 "):
        raise WorkerError(f"{PROGRAM.name} ended with exit code {process.returncode}")
    return {"start_s": round(answered - start, 3), "peak_mib": round(usage.ru_maxrss / 1024, 1)}


def weights_bytes(row: Row) -> dict[str, Any]:
    """What a token reads, and what a token of a row adds to the cache, in this precision.

    int4: half a byte and a scale of two bytes per 32 weights; the head in int8.
    """
    sizes = read_prompts(prompts_of(row.model))
    linear, head = {"fp32": (4.0, 4.0), "bf16": (2.0, 2.0), "int8": (1.0, 1.0), "int4": (0.5625, 1.0)}[row.precision]
    cached = 4 if row.precision == "fp32" else 2
    return {"weights": int(linear * sizes.streamed + head * sizes.head), "cache_per_token": cached * sizes.cached}
