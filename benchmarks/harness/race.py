"""A row: load all its contenders, compare them with eager fp32, then time them in turn, round after round.

Contenders that fail, or whose outputs are wrong, are not timed, and their entries say why.

They take turns so that whatever slows the machine down for a while slows all of them down; each round begins with
another contender. While one is timed the others are stopped by a signal, so that their threads cannot spin; a pause
lets that signal take effect.
"""

from __future__ import annotations

import dataclasses
import datetime
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.contenders import Job
from benchmarks.harness.files import NotMadeError, job_of
from benchmarks.harness.process import Process, Worker, WorkerError
from benchmarks.harness.rows import CONTENDERS, Contender, Row, Settings

# A process that starts while less is free could make the machine swap, and all times worthless.
LEAST_FREE_BYTES = 3 * 2**30

# Between two contenders: threads of the last one may still spin when it is told to stop.
PAUSE_SECONDS = 0.1

Entry = dict[str, Any]


def run_row(row: Row, contenders: Sequence[Contender], settings: Settings) -> dict[str, Entry]:
    """Time the contenders of a row together; the entry of each by its name. Who lacks the precision has none."""
    contenders = [contender for contender in contenders if row.precision in contender.precisions]
    # Files first: what is exported or compiled meanwhile would only be in the way of loaded models.
    jobs = {contender.name: _job(row, contender, settings) for contender in contenders}
    return race(f"{row.name} {row.precision}", jobs, settings)


def race(title: str, jobs: Mapping[str, tuple[Job | str, str]], settings: Settings) -> dict[str, Entry]:
    """Time jobs by name, each with the environment that it runs in; a text in place of a job says why there is none."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entries: dict[str, Entry] = {}
    with ExitStack() as processes:
        running: list[Process] = []
        for name, (job, home) in jobs.items():
            entry, worker = _loaded(job, home, processes)
            entries[name] = entry | {"run": when}
            if worker is not None:
                running.append(worker)
            print(f"{title}  {name:<12} {_words(entry)}", flush=True)
        blocks: dict[str, list[float]] = {worker.name: [] for worker in running}
        calls = dict.fromkeys(blocks, 0)
        for number in range(settings.rounds):
            turn = number % max(1, len(running))
            for worker in running[turn:] + running[:turn]:
                if entries[worker.name]["status"] != "timed":
                    continue
                worker.release()
                try:
                    times = worker.ask("time", seconds=settings.seconds, least=settings.least)["seconds"]
                except WorkerError as error:
                    entries[worker.name] |= {"status": "failed", "reason": str(error)}
                    continue
                worker.hold()
                time.sleep(PAUSE_SECONDS)
                blocks[worker.name].append(1000 * statistics.median(times))
                calls[worker.name] += len(times)
            load = machine.load()
            medians = "  ".join(f"{name} {found[-1]:.1f}" for name, found in blocks.items() if found)
            print(f"{title}  round {number + 1} of {settings.rounds}: {medians}  (load {load:.1f})")
    for name, found in blocks.items():
        if entries[name]["status"] == "timed":
            entries[name] |= {"blocks_ms": [round(value, 4) for value in found], "calls": calls[name]}
    return entries


def _job(row: Row, contender: Contender, settings: Settings) -> tuple[Job | str, str]:
    """The job, or why there is none; and where it runs."""
    try:
        return job_of(row, contender, settings), contender.home
    except NotMadeError as error:
        return str(error), contender.home


def _loaded(job: Job | str, home: str, processes: ExitStack) -> tuple[Entry, Process | None]:
    """A contender's entry so far, and its worker where it is to be timed."""
    if isinstance(job, str):
        return {"status": "missing", "reason": job}, None
    try:
        free = machine.free_bytes()
        if free < LEAST_FREE_BYTES:
            raise WorkerError(f"only {free / 2**30:.1f} GiB of memory were free")
        with ExitStack() as ends:
            worker = ends.enter_context(Worker(job, home))
            reply = worker.ask("load")
            status = reply.pop("status")
            if status != "right":
                return {"status": status, **reply}, None
            worker.hold()
            processes.push(ends.pop_all())
    except WorkerError as error:
        return {"status": "failed", "reason": str(error)}, None
    return {"status": "timed", **reply}, worker


def _words(entry: Entry) -> str:
    if "reason" in entry:
        return f"{entry['status']}: {entry['reason']}"
    errors = "" if entry["errors"] is None else f", rms error {entry['errors']['rms_error']:.1e}"
    return f"{'right' if entry['status'] == 'timed' else 'WRONG, not timed'}: {entry['variant']}{errors}"


def run_starts(row: Row, entries: dict[str, Entry], repeats: int, settings: Settings) -> dict[str, Entry]:
    """Fresh processes of each contender that was timed: seconds to the first answer, and memory, in order of repeats.

    A contender that takes longer than 20 s is asked once only.
    """
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        contender = CONTENDERS[name]
        if entry["status"] != "timed" or contender.kind == "floor":
            continue
        job = dataclasses.replace(job_of(row, contender, settings), variant=entry["variant"])
        runs = []
        for _ in range(repeats):
            runs.append(_start(job, contender.home))
            if runs[-1]["start_s"] > 20:
                break
        found[name] = {key: [run[key] for run in runs] for key in runs[0]} | {"run": entry["run"]}
        print(f"{row.model} {row.precision}  {name:<12} first answer after {found[name]['start_s']} s", flush=True)
    return found


def _start(job: Job, home: str) -> Entry:
    with Worker(job, home) as worker:
        seen = worker.ask("start")
        mega = 2**20
        return {
            "start_s": round(seen["answered"] - worker.spawned, 3),
            "import_s": round(seen["imported"] - worker.spawned, 3),
            "peak_mib": round(seen["peak"] / mega, 1),
            "steady_mib": round(seen["resident"] / mega, 1),
            "import_mib": round(seen["resident_imported"] / mega, 1),
        }


def run_profile(row: Row, settings: Settings) -> Entry:
    """Where the native artifact's time goes, by operator.

    Raises:
        NotMadeError, WorkerError: there is no artifact, or it failed.
    """
    with Worker(job_of(row, CONTENDERS["native"], settings), "main") as worker:
        worker.ask("load")
        return worker.ask("profile", seconds=3 * settings.seconds)
