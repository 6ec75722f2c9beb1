"""The command that represents a process forked from `forkserver.py`: `python forkclient.py ADDRESS COMMAND …`.

It takes the command of a fresh process, and has its output and its exit status or signal. Whoever starts it sees no
difference: streams, folder and environment are handed on, and signals are passed on. If the server refuses, this
process becomes the fresh one. It imports little, since it must start within hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def forked(address: str, command: list[str]) -> list[str]:
    """The command that runs another one in a fork."""
    # clean start: a file by its path, isolated
    return [sys.executable, "-I", "-S", __file__, address, *command]


def redirect_workers(address: str) -> None:
    """From here on, exports of this process verify and time their files in forks."""
    from exporter.selection import autotune
    from exporter.verification import verify
    from exporter.verification.subprocesses import worker

    autotune.worker = verify.worker = lambda name: forked(address, worker(name))  # type: ignore[attr-defined]


def main(address: str, command: list[str]) -> int:
    """Ask for the fork, wait for its end; its exit code, negative for a signal."""
    body = {"command": command, "environment": dict(os.environ), "folder": str(Path.cwd())}
    text = json.dumps(body).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        # Until it is known whom to pass them on to, signals wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        socket.send_fds(connection, [len(text).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(text)
        with connection.makefile("r") as answers:
            process = json.loads(answers.readline()).get("process")
            if process is None:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
                # clean start: the command is one of exporter.verification.subprocesses, or one of the project's two
                os.execv(command[0], command)

            def pass_on(number: int, _frame: FrameType | None) -> None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process, number)

            for number in _PASSED_ON:
                signal.signal(number, pass_on)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
            status: int = json.loads(answers.readline())["status"]
    return status


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2:])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
