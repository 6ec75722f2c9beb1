"""Run each pair, and each layout, in two separate processes, several at a time, with limits of time and memory.

A process that dies or takes too long becomes its item's result. pebble's pool watches the processes; this is the only
module that imports it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from exporter.verification.subprocesses import away
from tests.model_matrix.layouts.layout import Layout
from tests.model_matrix.pairs import Pair
from tests.model_matrix.zygote import Zygote

# A pair takes some five seconds and one gigabyte.
SECONDS = 240
# Images of the size of photos take longer.
LAYOUT_SECONDS = 480
BYTES = 10 * 2**30


class Item(Protocol):
    """A pair, or a layout: what can be sent to a process and has a row."""

    def blank(self) -> dict[str, Any]:
        """Its row before anything is known."""


# What runs in a process: (item, precision, folder, address of the gates) → a row, or what a probe changes in it.
Step = Callable[[Any, Any, Path, str], dict[str, Any]]


@dataclasses.dataclass
class _Job:
    """An item on its way; `row` is that of the export, once there is one."""

    item: Item
    folder: Path
    row: dict[str, Any] | None = None


def run_all(pairs: Sequence[Pair], precision: str, jobs: int, backend: str = "auto") -> Iterator[dict[str, Any]]:
    """Rows, as they come. Each pair in two processes of its own, forked from one that has imported everything."""
    with Zygote() as gates:
        export = functools.partial(_export, backend=backend)
        yield from run_steps(pairs, precision, jobs, gates.address, export, _probe)


def run_layouts(layouts: Sequence[Layout], precision: str, jobs: int) -> Iterator[dict[str, Any]]:
    """Rows of layouts, as they come."""
    with Zygote() as gates:
        preload = ["tests.model_matrix.layouts.steps", "tests.model_matrix.layouts.published"]
        steps = (_export_layout, _probe_layout)
        yield from run_steps(layouts, precision, jobs, gates.address, *steps, LAYOUT_SECONDS, preload)


def run_steps(
    items: Sequence[Item],
    precision: str,
    jobs: int,
    gates: str,
    export: Step,
    probe: Step,
    seconds: float = SECONDS,
    preload: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Export every item, and probe it where the export wrote an artifact."""
    # One thread a process, and none of the processes that the import of torch's compiler would start. No hub is asked.
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.model_matrix.one", *preload])
    waiting = list(reversed(items))
    running: dict[concurrent.futures.Future[Any], _Job] = {}
    # The pool starts processes whenever one has ended: a task each.
    with away(), ProcessPool(jobs, max_tasks=1, context=context) as pool:

        def start(step: Step, job: _Job) -> None:
            running[pool.schedule(step, (job.item, precision, job.folder, gates), timeout=seconds)] = job

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
    row = job.row or job.item.blank()
    try:
        found = future.result()
    except concurrent.futures.TimeoutError:
        return row | {"result": "out of time", "reason": f"no end after {seconds:g} s"}
    except ProcessExpired as error:
        return row | {"result": "died", "reason": f"the process ended with {error.exitcode}"}
    except Exception as error:  # noqa: BLE001 (of any of hundreds of architectures: the table has to show it)
        return row | {"result": "died", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
    changes: dict[str, Any] = found
    return row | changes


def _export(pair: Pair, precision: Any, folder: Path, gates: str, backend: Any) -> dict[str, Any]:
    """In a process of its own."""
    from tests.model_matrix import one

    _confine(folder)
    one.quiet(gates)
    return dataclasses.asdict(one.export_pair(pair, precision, folder, backend))


def _probe(pair: Pair, precision: Any, folder: Path, gates: str) -> dict[str, Any]:
    """In another process: what the exporting one left in memory must not help."""
    from tests.model_matrix import one

    _confine(folder)
    one.quiet(gates)
    result, reason = one.probe_pair(pair, precision, folder)
    return {} if result == "right" else {"result": result, "reason": reason}


def _export_layout(layout: Layout, precision: Any, folder: Path, gates: str) -> dict[str, Any]:
    """In a process of its own."""
    from tests.model_matrix import one
    from tests.model_matrix.layouts import steps

    _confine(folder)
    one.quiet(gates)
    return steps.export_layout(layout, precision, folder)


def _probe_layout(layout: Layout, _precision: Any, folder: Path, gates: str) -> dict[str, Any]:
    """In another process."""
    from tests.model_matrix import one
    from tests.model_matrix.layouts import steps

    _confine(folder)
    one.quiet(gates)
    return steps.probe_layout(layout, folder)


def _confine(folder: Path) -> None:
    """Bound this process's memory, and send what it prints to a file."""
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
