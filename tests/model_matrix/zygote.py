"""A process that has imported torch and the runtime, and forks a copy of itself for each verification.

It takes the arguments of `runtime.verification.worker` from processes that have its address, and returns what
`subprocess.run` would return. A verification must run where transformers and IPEX's package were never imported.
Starting Python and importing torch takes a second and a half, twice per pair; a fork of this process takes almost
nothing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

_SERVE = "import sys; from tests.model_matrix.zygote import serve; serve(sys.argv[1])"


class Zygote:
    """The process, as a context; `address` is where `spawn` reaches it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zygote.")
        self.address = str(Path(self._folder.name) / "socket")

    def __enter__(self) -> Zygote:
        # Imported here: the process itself imports this module, and must do without the exporter.
        from exporter.verification.subprocesses import ABSENT, python

        command = [*python(_SERVE, absent=ABSENT), self.address]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None  # asked for a pipe
        self._process.stdout.readline()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None  # asked for a pipe
        self._process.stdout.close()
        self._folder.cleanup()


def spawn(address: str, arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a verification in a fork of the zygote, with these variables in its environment."""
    with Client(address, "AF_UNIX") as connection:
        connection.send((arguments, variables, str(Path.cwd())))
        code, output, errors = connection.recv()
    return subprocess.CompletedProcess(arguments, code, output, errors)


def serve(address: str) -> None:
    """Fork for every connection, until this process is ended."""
    import torch

    import runtime.verification.worker  # noqa: F401  # imported once, before the forks

    torch.set_num_threads(1)
    with Listener(address, "AF_UNIX", backlog=socket.SOMAXCONN) as listener:
        print("ready", flush=True)
        while True:
            connection = listener.accept()
            if os.fork() == 0:
                listener.close()
                _attend(connection)
                os._exit(0)
            connection.close()
            _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _attend(connection: Connection) -> None:
    """Run one verification in a child process, so that its death becomes an exit code."""
    arguments, variables, folder = connection.recv()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.environ.update(variables)
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            _run_worker(arguments)
        _, status = os.waitpid(child, 0)
        texts = [_read(file.fileno()) for file in (output, errors)]
    connection.send((os.waitstatus_to_exitcode(status), *texts))
    connection.close()


def _run_worker(arguments: list[str]) -> None:
    """Run the worker and end this process."""
    from runtime.verification.worker import main

    code = 1
    try:
        code = main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _read(descriptor: int) -> str:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, size).decode(errors="replace")
