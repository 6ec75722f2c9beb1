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
from collections.abc import Callable, Mapping, Sequence
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
Reply = dict[str, Any]


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

        def words(replies: Sequence[Reply]) -> str:
            return f"{1000 * statistics.median(replies[-1]['seconds']):.1f}"

        replies, failed = take_turns(
            title, running, settings.rounds, words, "time", seconds=settings.seconds, least=settings.least
        )
    for name, found in replies.items():
        if name in failed:
            entries[name] |= {"status": "failed", "reason": failed[name]}
            continue
        blocks = [1000 * statistics.median(reply["seconds"]) for reply in found]
        calls = sum(len(reply["seconds"]) for reply in found)
        entries[name] |= {"blocks_ms": [round(value, 4) for value in blocks], "calls": calls}
    return entries


def take_turns(
    title: str,
    running: Sequence[Process],
    rounds: int,
    words: Callable[[Sequence[Reply]], str],
    do: str,
    **options: Any,
) -> tuple[dict[str, list[Reply]], dict[str, str]]:
    """Give stopped processes a command in turn, round after round, and stop them again; prints a line per round.

    Returns:
        The replies by the process's name, and the reason for each one that failed, which is not asked again.

    Args:
        title: of the lines.
        running: stopped processes.
        rounds: how many; each begins with another process.
        words: what a line says of a process's replies so far.
        do: the command.
        **options: of the command.
    """
    replies: dict[str, list[Reply]] = {process.name: [] for process in running}
    failed: dict[str, str] = {}
    for number in range(rounds):
        turn = number % max(1, len(running))
        for process in [*running[turn:], *running[:turn]]:
            if process.name in failed:
                continue
            process.release()
            try:
                reply = process.ask(do, **options)
            except WorkerError as error:
                failed[process.name] = str(error)
                continue
            process.hold()
            time.sleep(PAUSE_SECONDS)
            replies[process.name].append(reply)
        latest = "  ".join(f"{name} {words(found)}" for name, found in replies.items() if found)
        print(f"{title}  round {number + 1} of {rounds}: {latest}  (load {machine.load():.1f})", flush=True)
    return replies, failed


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
    return loaded(lambda: Worker(job, home), processes)


def loaded(start: Callable[[], Process], processes: ExitStack) -> tuple[Entry, Process | None]:
    """Start a process and let it load; it stays, stopped, where its answers are right.

    Returns:
        Its entry so far, and the process where it is to be timed.

    Args:
        start: makes the process, whose command `load` gives a `status`: `right`, or what else it is.
        processes: ends those that stay.
    """
    try:
        free = machine.free_bytes()
        if free < LEAST_FREE_BYTES:
            raise WorkerError(f"only {free / 2**30:.1f} GiB of memory were free")
        with ExitStack() as ends:
            process = ends.enter_context(start())
            reply = process.ask("load")
            status = reply.pop("status")
            if status != "right":
                return {"status": status, **reply}, None
            process.hold()
            processes.push(ends.pop_all())
    except WorkerError as error:
        return {"status": "failed", "reason": str(error)}, None
    return {"status": "timed", **reply}, process


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
