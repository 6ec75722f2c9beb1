"""Processes: each pair in two of its own, so many at a time, each with a limit of time and memory.

In: pairs, a precision, how many at a time. Out: rows as they come. A process that dies or takes too long is its
pair's result.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from exporter.processes import away
from matrix.pairs import Pair
from matrix.zygote import Zygote

# A pair takes some five seconds and one gigabyte.
SECONDS = 240
BYTES = 10 * 2**30


@dataclasses.dataclass
class _Job:
    pair: Pair
    folder: Path
    process: Any
    result: Connection
    deadline: float
    probing: dict[str, Any] | None = None


def run_all(pairs: Sequence[Pair], precision: str, jobs: int) -> Iterator[dict[str, Any]]:
    """Rows, as they come. Each pair in two processes of its own, forked from one that has imported everything."""
    # One thread a process, and none of the processes that the import of torch's compiler would start.
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["matrix.one"])
    waiting, running = list(reversed(pairs)), list[_Job]()
    with Zygote() as gates:
        yield from _rows(context, waiting, running, precision, jobs, gates.address)


def _rows(
    context: Any, waiting: list[Pair], running: list[_Job], precision: str, jobs: int, gates: str
) -> Iterator[dict[str, Any]]:
    while waiting or running:
        while waiting and len(running) < jobs:
            pair = waiting.pop()
            folder = Path(tempfile.mkdtemp(prefix="coverage."))
            running.append(_start(context, pair, precision, folder, gates, None))
        wait([job.result for job in running], timeout=max(0.1, min(job.deadline for job in running) - time.monotonic()))
        for job in list(running):
            row = _ended(job)
            if row is None:
                continue
            running.remove(job)
            if job.probing is None and row["result"] in ("right", "narrowed", "plain"):
                running.append(_start(context, job.pair, precision, job.folder, gates, row))
                continue
            shutil.rmtree(job.folder, ignore_errors=True)
            yield row


def _start(context: Any, pair: Pair, precision: str, folder: Path, gates: str, probing: dict[str, Any] | None) -> _Job:
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(send, pair, precision, folder, gates, probing is not None))
    with away():
        process.start()
    send.close()
    return _Job(pair, folder, process, receive, time.monotonic() + SECONDS, probing)


def _ended(job: _Job) -> dict[str, Any] | None:
    """The row, if the job has come to an end."""
    blank: dict[str, Any] = {
        "model_type": job.pair.model_type,
        "task": job.pair.task,
        "architecture": job.pair.architecture,
    }
    blank |= {"kind": job.pair.kind, "max_error": None, "seconds": None}
    if job.result.poll():
        try:
            answer = job.result.recv()
        except EOFError:
            job.process.join()
            answer = blank | {"result": "died", "reason": f"the process ended with {job.process.exitcode}"}
    elif time.monotonic() > job.deadline:
        os.killpg(job.process.pid, signal.SIGKILL)
        answer = blank | {"result": "out of time", "reason": f"no end after {SECONDS} s"}
    else:
        return None
    job.process.join()
    job.result.close()
    if job.probing is None or isinstance(answer, dict):
        row: dict[str, Any] = answer
        return row
    result, reason = answer
    return job.probing | ({} if result == "right" else {"result": result, "reason": reason})


def _work(send: Connection, pair: Pair, precision: Any, folder: Path, gates: str, probe: bool) -> None:
    """In a process of its own: export, or probe what was exported."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from matrix import one

    one.quiet(gates)
    if probe:
        send.send(one.probe_pair(pair, precision, folder))
    else:
        send.send(dataclasses.asdict(one.export_pair(pair, precision, folder)))
