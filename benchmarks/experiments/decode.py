"""The method `decode` of files that generate text, against each other in turns: prompts, and single tokens behind one.

    python -m benchmarks.experiments.decode FILE... [--threads 2] [--rounds 7]

For each file: milliseconds for prompts of 128 and 512 tokens, and per token for 32 tokens of one row behind 128; the
shortest of all rounds, as wall time and as the process's time on its processors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import runtime
from runtime.generation.cache import Caches

_PROMPTS, _BEHIND, _TOKENS = (128, 512), 128, 32


def prompt(session: runtime.Session, length: int) -> Callable[[], None]:
    """A call that reads a prompt of so many tokens."""
    info = session.manifest.generation
    assert info is not None
    ids, places = torch.arange(length)[None] + 100, torch.arange(length)[None]
    caches = Caches(info, 1, length)
    return lambda: void(session.decode(ids, places, torch.tensor([[length - 1]]), caches.tensors))


def tokens(session: runtime.Session) -> Callable[[], None]:
    """Calls that read one token each, behind a prompt."""
    info = session.manifest.generation
    assert info is not None
    caches = Caches(info, 1, _BEHIND + _TOKENS)
    first = torch.arange(_BEHIND)[None]
    session.decode(first + 100, first, torch.tensor([[_BEHIND - 1]]), caches.tensors)

    def run() -> None:
        for number in range(_TOKENS):
            place = torch.tensor([[_BEHIND + number]])
            session.decode(place, place, torch.tensor([[0]]), caches.tensors)

    return run


def void(_: object) -> None:
    """Drop a result."""


def main() -> None:
    """Parse, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    sessions = {file: runtime.load(file, threads=options.threads) for file in options.files}
    calls = {
        (file, what): (call, count)
        for file, session in sessions.items()
        for what, call, count in (
            *((f"prompt of {length}", prompt(session, length), 1) for length in _PROMPTS),
            ("token", tokens(session), _TOKENS),
        )
    }
    best: dict[tuple[str, str], list[float]] = {}
    with torch.no_grad():
        for _ in range(options.rounds):
            for key, (call, count) in calls.items():
                wall, own = time.perf_counter(), time.process_time()
                call()
                found = [(time.perf_counter() - wall) / count * 1e3, (time.process_time() - own) / count * 1e3]
                best[key] = list(map(min, best.get(key, found), found))
    for (file, what), (wall, own) in best.items():
        print(f"{file} {what}: {wall:.2f} ms, {own:.2f} ms of processors, {1e3 / wall:.1f} per second")


if __name__ == "__main__":
    main()
