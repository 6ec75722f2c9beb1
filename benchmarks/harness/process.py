"""The parent's side of a worker: start it, send it requests, pause it while others are timed. Needs no package.

A worker that does not reply in time, or has ended, is a `WorkerError` with the last line of its log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import signal
import subprocess
import time
from typing import Any

from benchmarks.harness import places
from benchmarks.harness.contenders import Job
from benchmarks.harness.files import command, last_line, log_of

# Loading includes compiling, for torch.compile.
PATIENCE_SECONDS = 1200.0


class WorkerError(Exception):
    """A worker ended or did not answer; the message is the reason."""


class Process:
    """A process of a module that calls `benchmarks.harness.worker.serve`; leaving the `with` statement ends it.

    `job` is a dataclass of plain values, told to it as JSON; it has `contender`, the name, and `threads`, of one call.
    """

    def __init__(self, job: Any, home: str, module: str, log: str) -> None:
        self.name = job.contender
        self._log = log_of(log)
        self.spawned = time.monotonic()
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [*command(home, module), json.dumps(dataclasses.asdict(job))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=places.environment(job.threads),
                cwd=places.ROOT,
                text=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        # A stopped process takes this signal too.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # What was not yet written has no reader any more.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ask(self, do: str, **options: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises:
            WorkerError: there will be none.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **options}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(last_line(self._log)) from None
        if not select.select([self._process.stdout], [], [], PATIENCE_SECONDS)[0]:
            raise WorkerError(f"no answer to {do!r} within {PATIENCE_SECONDS:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise WorkerError(last_line(self._log))
        reply: dict[str, Any] = json.loads(line)
        return reply

    def hold(self) -> None:
        """Stop every thread of the process: threads that wait for work would spin on the cores of others."""
        self._process.send_signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)


class Worker(Process):
    """A process that runs one contender of `benchmarks.harness`."""

    def __init__(self, job: Job, home: str) -> None:
        log = f"{job.model}_{job.shape}_{job.precision}-{job.contender}"
        super().__init__(job, home, "benchmarks.harness.worker", log)
