"""Decide which processes of these tests are forks of warm processes (`forkserver.py`), and which are fresh.

Commands are replaced by commands that do the same in a fork, except in tests with the marker `fresh`, which test how a
process starts or what it imports. A server starts when it is first used.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from exporter.selection import autotune
from exporter.verification import subprocesses, verify
from runtime.host.requirements import minor
from tests.support.commands import parse
from tests.support.forkclient import forked

_SERVE = "import sys; from tests.support.forkserver import main; main(*sys.argv[1:])"


class _Server:
    """A process of `forkserver.py`, from its first use until these tests end."""

    def __init__(self, modules: Sequence[str], workers: _Server | None = None) -> None:
        self._modules = modules
        self._workers = workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def address(self) -> str:
        """Of its socket, where it listens by now."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="forks.")
            self._start(f"{self._folder.name}/socket")
        return f"{self._folder.name}/socket"

    def _start(self, address: str) -> None:
        workers = self._workers.address if self._workers is not None else ""
        process = subprocess.Popen(
            [*subprocesses.python(_SERVE), address, workers, *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        )
        atexit.register(process.communicate)  # the end of its standard input ends it
        assert process.stdout is not None  # asked for a pipe
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the server of forks did not start; its errors are above")


class Processes:
    """Turns commands into those of forks, except while `fresh`."""

    def __init__(self) -> None:
        # The OpenMP that torch 1.13 brings cannot end its threads before a fork (`runtime.host.forking`).
        self._always_fresh = minor(importlib.metadata.version("torch")) < (2, 0)
        self._fresh = self._always_fresh
        self._workers = _Server(
            (
                "torch",
                "safetensors.torch",
                "runtime.verification.worker",
                "runtime.verification.timing_worker",
                "runtime.commands.main",
            )
        )
        self._exports = _Server(("exporter.cli", "exporter.pipeline", "transformers.modeling_utils"), self._workers)

    def command(self, command: Sequence[object]) -> list[str]:
        """The command to start; as it is where a fork cannot do the same."""
        parts = [str(part) for part in command]
        parsed = None if self._fresh else parse(parts)
        if parsed is None:
            return parts
        return forked((self._exports if parsed.exports else self._workers).address, parts)

    def worker(self, name: str) -> list[str]:
        """In place of `exporter.verification.subprocesses.worker`."""
        return self.command(subprocesses.worker(name))

    def redirect_workers(self) -> None:
        """From here on, exports of this very process verify and time their files in forks."""
        autotune.worker = verify.worker = self.worker  # type: ignore[attr-defined]

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """While it lasts, every process is a fresh one."""
        self._fresh = True
        yield
        self._fresh = self._always_fresh


PROCESSES = Processes()
