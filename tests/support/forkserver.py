"""A process that has imported what most Python processes of these tests import, and forks a copy of itself per request.

`forkclient.py` sends requests over a socket: a command of this project, its environment, folder and standard streams;
the reply is the exit status. Starting Python and importing torch takes two seconds of a processor, and transformers two
more; a fork takes neither. `processes.py` starts it.

A request is refused if a fork could not do the same, and the client then starts the command itself: for another
environment, since libraries read many variables while they are loaded; for an unknown flag; and for a module that must
be absent but is imported here.

Nothing is computed here before a fork: OpenMP keeps its threads after the first parallel loop, and a fork does not copy
threads.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.commands import parse
from tests.support.forkclient import redirect_workers


@dataclass(frozen=True)
class Request:
    """What the client asks for; `streams` are descriptors: standard input, output, errors."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    streams: list[int]


def receive(connection: socket.socket) -> Request:
    """Read a request: its length in eight bytes, with the descriptors; then JSON."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        fields = json.loads(file.read(int.from_bytes(head, "big")))
    return Request(streams=list(streams), **fields)


def refusal(request: Request) -> str | None:
    """Why a fork cannot stand for this command; None if it can."""
    if relevant(request.environment) != relevant(os.environ):
        return "another environment"
    command = parse(request.command)
    if command is None:
        return "an unknown command"
    loaded = [name for name in command.settings.get("absent", ()) if sys.modules.get(name) is not None]
    return f"{loaded[0]} is imported" if loaded else None


# What makes no difference here: the size of a terminal, pytest's own variables, and those set by an import of IPEX
# (for PyTorch's compiler), sentence-transformers (for a logger), scikit-learn (for Intel's OpenMP; torch has GNU's) and
# Ray (its own, and its debugger). The native operators, which read the last, are loaded after the fork.
_IGNORED = (
    *("COLUMNS", "LINES", "PYTEST_", "TORCHINDUCTOR_", "CODECARBON_", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
    *("RAY_", "PYTHONBREAKPOINT", "EXPORTED_MODEL_KERNELS"),
)


def relevant(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may change what a process does."""
    return {name: value for name, value in environment.items() if not name.startswith(_IGNORED)}


class Server:
    """Listens at an address, and forks."""

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(socket.SOMAXCONN)
        self._selector = selectors.DefaultSelector()
        # Connection → process, and the descriptor that becomes readable when the process ends.
        self._running: dict[socket.socket, tuple[int, int]] = {}

    def serve(self, lifeline: int) -> Request:
        """Fork for every request; returns in each fork, with what it is to do. Ends the process with `lifeline`."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(lifeline, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == lifeline:
                    self._end()
                elif key.fileobj is not self._listener:
                    self._ended(key.data)
                elif (request := self._accept()) is not None:
                    os.close(lifeline)
                    return request

    def _accept(self) -> Request | None:
        """The request in its fork, None in the server."""
        connection, _ = self._listener.accept()
        request = receive(connection)
        why_not = refusal(request)
        if why_not is not None:
            _send(connection, {"refused": why_not})
            connection.close()
        else:
            process = os.fork()
            if process == 0:
                connection.close()
                self._forget()
                return request
            descriptor = os.pidfd_open(process)
            self._running[connection] = (process, descriptor)
            self._selector.register(descriptor, selectors.EVENT_READ, connection)
            self._selector.register(connection, selectors.EVENT_READ, connection)
            _send(connection, {"process": process})
        for stream in request.streams:
            os.close(stream)
        return None

    def _ended(self, connection: socket.socket) -> None:
        """The process has ended, or the client that waits for it: then nobody needs the process."""
        if connection not in self._running:
            return
        process, descriptor = self._running.pop(connection)
        self._selector.unregister(descriptor)
        self._selector.unregister(connection)
        os.close(descriptor)
        found, status = os.waitpid(process, os.WNOHANG)
        if found == 0:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        else:
            _send(connection, {"status": os.waitstatus_to_exitcode(status)})
        connection.close()

    def _forget(self) -> None:
        """In a fork: close what is the server's."""
        self._selector.close()
        self._listener.close()
        for connection, (_, descriptor) in self._running.items():
            os.close(descriptor)
            connection.close()

    def _end(self) -> None:
        for process, _ in self._running.values():
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        os._exit(0)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the client has ended
        connection.sendall(json.dumps(message).encode() + b"\n")


def carry_out(request: Request) -> None:
    """Become the process that was asked for."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    # Python's objects remember of the server's streams whether they can seek.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    command = parse(request.command)
    assert command is not None  # `refusal` has looked
    if command.warnings_are_errors:
        sys.warnoptions.append("error")
        warnings.simplefilter("error")
    if command.script:
        sys.argv = [command.script, *command.arguments]
        runpy.run_path(command.script, run_name="__main__")
    else:
        runpy.run_path(command.launcher)["launch"](command.settings, command.arguments)


def main(address: str, workers: str, *modules: str) -> None:
    """Import, say "ready", serve until standard input ends.

    Args:
        address: of the socket to listen on.
        workers: the address of the server whose forks verify what forks of this one export; empty for none.
        modules: what to import before the first fork.
    """
    lifeline = os.dup(0)
    _to_null(0, os.O_RDONLY)
    for name in modules:
        importlib.import_module(name)
    if workers:
        redirect_workers(workers)
    server = Server(address)
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    _to_null(1, os.O_WRONLY)
    carry_out(server.serve(lifeline))


def _to_null(stream: int, mode: int) -> None:
    null = os.open(os.devnull, mode)
    os.dup2(null, stream)
    os.close(null)
