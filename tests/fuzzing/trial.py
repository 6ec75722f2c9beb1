"""Try mutated files, one after the other, in a child process that is forked from a warm one.

A file may take 10 seconds, to load and to answer, and 500 MB beyond what the process had before the first.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import resource
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .mutations import CODE, FORGED, mutate

SECONDS, MEGABYTES = 10.0, 500
# So many files per child: what PyTorch keeps of code that it compiled would add up.
_PER_CHILD = 500
_LENGTH = struct.Struct("<L")
# Loops in code that was changed may never end: a file's code runs as it is written, there is no sandbox.
_LOOP = re.compile(rb"^\s+(?:while|for)\b", re.MULTILINE)
Row = tuple[int, str, float, int, str]


def attempt(path: Path, cases: Any, expected: Any, forged: bool) -> str:
    """Load a file and ask it what the base was asked."""
    import torch

    from runtime import ExportedModelError, load

    try:
        session = load(path)
        for case, answers in zip(cases, expected, strict=True):
            found = list(session(**case.inputs).values())
            same = len(found) == len(answers) and all(
                a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, atol=1e-5)
                for a, b in zip(found, answers, strict=True)
            )
            if not same and not forged:
                return "WRONG SUCCESS"
    except ExportedModelError as error:
        return type(error).__name__ if "\n" not in str(error) else "WRONG: an error of several lines"
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return f"UNNAMED {type(error).__name__}: {str(error)[:200]}"
    return "loaded, same answers" if not forged else "loaded"


def work(pipe: Any, bases: list[bytes], folder: str, seed: int, indices: range) -> None:
    """Send a row per index: what came of it, seconds, kilobytes above the start, kind."""
    import torch

    from runtime import load
    from runtime.artifact import artifact_file
    from runtime.format.golden import parse_cases

    torch.set_num_threads(1)
    path = Path(folder) / f"{multiprocessing.current_process().pid}.pt"
    known = []
    for base in bases:
        path.write_bytes(base)
        session = load(path)
        cases = parse_cases(artifact_file.read_part(path, "golden.safetensors") or b"", "golden")[:1]
        known.append((base, cases, [list(session(**case.inputs).values()) for case in cases]))
    todo = list(indices)
    while todo:
        for row in _in_child(known, path, seed, todo[:_PER_CHILD]):
            pipe.send(row)
            todo.pop(0)
    pipe.send(None)


def _in_child(known: list[Any], path: Path, seed: int, todo: list[int]) -> Iterator[Row]:
    """Rows from a forked child, until it is through or was ended by a signal, which is the last row then."""
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        _answer(begin, known, path, seed, todo)
        os._exit(0)
    os.close(begin)
    done = 0
    with os.fdopen(end, "rb") as rows:
        while head := rows.read(_LENGTH.size):
            yield pickle.loads(rows.read(_LENGTH.unpack(head)[0]))
            done += 1
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if done < len(todo):
        index = todo[done]
        kind, data = mutate(known[index % len(known)][0], seed, index)
        outcome = f"CRASH (exit code {status})"
        if status == -signal.SIGALRM:
            outcome = "endless loop in changed code" if kind in CODE and _has_loop(data) else "HANG"
        yield index, outcome, SECONDS if status == -signal.SIGALRM else 0.0, 0, kind


def _has_loop(data: bytes) -> bool:
    from tests.hostile.builder import Forged

    return any(_LOOP.search(content) for name, content in Forged(data).records.items() if name.endswith(".py"))


def _answer(pipe: int, known: list[Any], path: Path, seed: int, todo: list[int]) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20,) * 2)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # PyTorch warns of code that it finds odd.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for index in todo:
        base, cases, expected = known[index % len(known)]
        kind, data = mutate(base, seed, index)
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        began = time.monotonic()
        outcome = attempt(path, cases, expected, kind in FORGED)
        took = time.monotonic() - began
        signal.setitimer(signal.ITIMER_REAL, 0)
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        row = pickle.dumps((index, outcome, took, more, kind))
        os.write(pipe, _LENGTH.pack(len(row)) + row)
