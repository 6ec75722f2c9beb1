"""Run each pair in two separate processes, several at a time, with limits of time and memory.

A process that dies or takes too long becomes its pair's result. pebble's pool watches the processes; this is the only
module that imports it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from exporter.verification.subprocesses import away
from tests.model_matrix.pairs import Pair
from tests.model_matrix.zygote import Zygote

# A pair takes some five seconds and one gigabyte.
SECONDS = 240
BYTES = 10 * 2**30

# What runs in a process: (pair, precision, folder, address of the gates) → a row, or the result and reason of a probe.
Step = Callable[[Pair, Any, Path, str], Any]


@dataclasses.dataclass
class _Job:
    """A pair on its way; `row` is that of the export, once there is one."""

    pair: Pair
    folder: Path
    row: dict[str, Any] | None = None


def run_all(pairs: Sequence[Pair], precision: str, jobs: int) -> Iterator[dict[str, Any]]:
    """Rows, as they come. Each pair in two processes of its own, forked from one that has imported everything."""
    with Zygote() as gates:
        yield from run_steps(pairs, precision, jobs, gates.address, _export, _probe)


def run_steps(
    pairs: Sequence[Pair], precision: str, jobs: int, gates: str, export: Step, probe: Step, seconds: float = SECONDS
) -> Iterator[dict[str, Any]]:
    """Export every pair, and probe it where the export wrote an artifact."""
    # One thread a process, and none of the processes that the import of torch's compiler would start.
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.model_matrix.one"])
    waiting = list(reversed(pairs))
    running: dict[concurrent.futures.Future[Any], _Job] = {}
    # The pool starts processes whenever one has ended: a task each.
    with away(), ProcessPool(jobs, max_tasks=1, context=context) as pool:

        def start(step: Step, job: _Job) -> None:
            running[pool.schedule(step, (job.pair, precision, job.folder, gates), timeout=seconds)] = job

        try:
            while waiting or running:
                # No more than can run: a probe shall not wait behind all exports, whose artifacts need space.
                while waiting and len(running) < jobs:
                    start(export, _Job(waiting.pop(), Path(tempfile.mkdtemp(prefix="coverage."))))
                ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    job = running.pop(future)
                    row = _row(job, future, seconds)
                    if job.row is None and row["result"] in ("right", "narrowed", "plain"):
                        start(probe, dataclasses.replace(job, row=row))
                        continue
                    shutil.rmtree(job.folder, ignore_errors=True)
                    yield row
        finally:
            # Where the caller has stopped asking, nothing is to be waited for.
            pool.stop()
            for job in running.values():
                shutil.rmtree(job.folder, ignore_errors=True)


def _row(job: _Job, future: concurrent.futures.Future[Any], seconds: float) -> dict[str, Any]:
    """What became of a job."""
    pair = job.pair
    row = job.row or {
        "model_type": pair.model_type,
        "task": pair.task,
        "architecture": pair.architecture,
        "kind": pair.kind,
        "max_error": None,
        "seconds": None,
    }
    try:
        found = future.result()
    except concurrent.futures.TimeoutError:
        return row | {"result": "out of time", "reason": f"no end after {seconds:g} s"}
    except ProcessExpired as error:
        return row | {"result": "died", "reason": f"the process ended with {error.exitcode}"}
    except Exception as error:  # noqa: BLE001 (of any of hundreds of architectures: the table has to show it)
        return row | {"result": "died", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
    if job.row is None:
        exported: dict[str, Any] = found
        return exported
    result, reason = found
    return row | ({} if result == "right" else {"result": result, "reason": reason})


def _export(pair: Pair, precision: Any, folder: Path, gates: str) -> dict[str, Any]:
    """In a process of its own."""
    from tests.model_matrix import one

    _confine(folder)
    one.quiet(gates)
    return dataclasses.asdict(one.export_pair(pair, precision, folder))


def _probe(pair: Pair, precision: Any, folder: Path, gates: str) -> tuple[str, str]:
    """In another process: what the exporting one left in memory must not help."""
    from tests.model_matrix import one

    _confine(folder)
    one.quiet(gates)
    return one.probe_pair(pair, precision, folder)


def _confine(folder: Path) -> None:
    """Bound this process's memory, and send what it prints to a file."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
