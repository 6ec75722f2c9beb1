"""The example worker: lines in, lines out; told to end or to load again while it is busy, it loses nothing."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.verification.subprocesses import script
from runtime import Session, load
from tests.conftest import ROOT, run

WORKER = ROOT / "examples/python/worker.py"


def line(name: Any, ids: list[list[int]], **more: Any) -> bytes:
    return json.dumps({"id": name, "inputs": {"input_ids": ids}, **more}).encode() + b"\n"


def asked(number: int) -> list[list[int]]:
    """The ids of a request by its number; there are forty different ones."""
    chance = random.Random(number % 40)
    return [[chance.randrange(1, 299) for _ in range(chance.randint(1, 40))]]


@functools.cache
def expected(session: Session, number: int) -> torch.Tensor:
    return session(input_ids=torch.tensor(asked(number)))["logits"]


def right(answer: dict[str, Any], session: Session) -> bool:
    found, known = torch.tensor(answer["outputs"]["logits"]), expected(session, answer["id"] % 40)
    return found.shape == known.shape and torch.allclose(found, known, rtol=1e-4, atol=1e-5)


def feed(path: Path, lines: Sequence[bytes], *options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*script(WORKER, flags=("-W", "error")), path, *options]
    return subprocess.run([str(part) for part in command], input=b"".join(lines), capture_output=True, timeout=120)


def test_lines_on_standard_input(tiny_artifact: Path, tiny_session: Session) -> None:
    """More of them than the queue holds; what is wrong with one is its own answer."""
    bad = [
        b"no json\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b"\n",
        b'{"id": "neither"}\n',
        line("range", [[10**6]]),
        line("ragged", [[1, 2], [3]]),
        line("limit", [[1]], deadline_ms="soon"),
        b'{"id": "text", "text": "no tokenizer"}\n',
    ]
    good = [line(number, asked(number)) for number in range(100)]
    # The last without an end of line.
    done = feed(tiny_artifact, [*bad, *good, line("last", [[5]]).rstrip()], "--queue", 8, "--workers", 2)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(one) for one in done.stdout.splitlines()]
    assert len(answers) == len(bad) - 1 + len(good) + 1
    errors = {str(one["id"]): one["error"] for one in answers if "error" in one}
    assert set(errors) == {"None", "neither", "range", "ragged", "limit", "text"}
    assert errors["range"].startswith("input 'input_ids' holds 1000000; expected integers from 0 to 299")
    assert (
        "tokenizer" in errors["text"] and errors["limit"] == "deadline_ms is 'soon'; expected a number of milliseconds"
    )
    assert all(right(one, tiny_session) for one in answers if isinstance(one["id"], int))
    assert done.stderr.decode() == "worker: 101 requests, 101 answered, 0 failed\n"


def test_text(minilm_ipex: Path) -> None:
    done = feed(minilm_ipex, [b'{"id": 1, "text": "a short text"}\n'])
    answer = json.loads(done.stdout)
    assert answer["id"] == 1 and len(answer["outputs"]["sentence_embedding"][0]) == 384


def test_what_it_refuses(tmp_path: Path) -> None:
    done = run([*script(WORKER), tmp_path / "none.pt"])
    assert done.returncode == 1 and done.stderr.startswith("worker: there is no file") and done.stderr.count("\n") == 1
    assert run(script(WORKER)).returncode == 2


class Serving:
    """The worker as a process, on a port, and clients that keep it busy."""

    def __init__(self, path: Path, *options: object) -> None:
        command = [*script(WORKER, flags=("-W", "error")), path, "--port", "0", *options]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stderr is not None
        self.port = int(self.process.stdout.readline().split(b":")[1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def told(self) -> str:
        """The next line on standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().decode()


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(path: Path, *options: object) -> Serving:
        started.append(Serving(path, *options))
        return started[-1]

    yield start
    for one in started:
        with one.process:
            one.process.kill()


def stream(
    serving: Serving,
    first: int,
    answers: list[dict[str, Any]],
    until: threading.Event,
    pause: float = 0.0,
    flowing: threading.Event | None = None,
) -> None:
    """One client: sends without waiting for answers, reads all of them until the worker ends.

    `flowing` is set when it has some.
    """
    with serving.connect() as client:

        def send() -> None:
            number = first
            with contextlib.suppress(OSError):  # the worker has ended
                while not until.is_set():
                    client.sendall(line(number, asked(number)))
                    number += 1
                    time.sleep(pause)
                client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        with client.makefile("rb") as lines:
            for one in lines:
                answers.append(json.loads(one))
                if flowing is not None and len(answers) >= 50 and "error" not in answers[-1]:
                    flowing.set()
        until.set()
        sender.join()


def test_sigterm_under_load(tiny_artifact: Path, tiny_session: Session, serving: Callable[..., Serving]) -> None:
    worker = serving(tiny_artifact, "--queue", 64)
    ended, flowing = ([threading.Event() for _ in range(4)] for _ in range(2))
    answers: list[list[dict[str, Any]]] = [[] for _ in ended]
    clients = [
        threading.Thread(target=stream, args=(worker, 10_000 * n, answers[n], ended[n], 0.0, flowing[n]))
        for n in range(len(ended))
    ]
    for client in clients:
        client.start()
    assert all(event.wait(60) for event in flowing)
    worker.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    assert worker.process.wait(60) == 0
    # Of each client, the first so many that it sent: all that was read has an answer: a right one, or, while it
    # waited for none and the others had filled the queue, a refusal by name.
    total = 0
    for number, found in enumerate(answers):
        assert sorted(one["id"] for one in found) == list(range(10_000 * number, 10_000 * number + len(found)))
        accepted = [one for one in found if "error" not in one]
        assert accepted and all(right(one, tiny_session) for one in accepted)
        assert all(one["error"].startswith("the queue holds") for one in found if "error" in one)
        total += len(accepted)
    assert worker.told() == f"worker: {total} requests, {total} answered, 0 failed\n"
    with pytest.raises(OSError):
        worker.connect()


def test_another_artifact_while_serving(
    tiny_folder: Callable[..., Path],
    exported: Callable[..., Any],
    tiny_artifact: Path,
    tmp_path: Path,
    serving: Callable[..., Serving],
) -> None:
    """Overwritten by rubbish, the file is refused and the old answers stay; replaced by a good one, it serves that."""
    new = Path(exported(tiny_folder("bert", "text-classification", num_labels=4), backend="plain").output)
    path = Path(shutil.copy(tiny_artifact, tmp_path / "serving.pt"))
    sessions = {3: load(tiny_artifact), 4: load(new)}
    worker, ended = serving(path), threading.Event()
    answers: list[dict[str, Any]] = []
    client = threading.Thread(target=stream, args=(worker, 0, answers, ended, 0.005))
    client.start()

    path.write_bytes(os.urandom(path.stat().st_size))
    worker.process.send_signal(signal.SIGHUP)
    assert worker.told().startswith("worker: the old artifact stays: ")
    shutil.copy(new, tmp_path / "next.pt")
    (tmp_path / "next.pt").replace(path)
    worker.process.send_signal(signal.SIGHUP)
    assert worker.told().endswith("was loaded again\n")
    with worker.connect() as other, other.makefile("rb") as lines:
        other.sendall(line(5, asked(5)))
        assert len(json.loads(lines.readline())["outputs"]["logits"][0]) == 4
    ended.set()
    client.join()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0
    assert sorted(one["id"] for one in answers) == list(range(len(answers)))
    assert {len(one["outputs"]["logits"][0]) for one in answers} == {3, 4}
    assert all(right(one, sessions[len(one["outputs"]["logits"][0])]) for one in answers)
