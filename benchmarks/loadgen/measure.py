"""Run the scenarios in order, with the systems in turn.

The results are handed on after each scenario, so that a run that is cut off keeps what it measured.

Systems take turns so that whatever slows the machine down for a while slows all of them down; each round begins with
another system. While one runs the others are stopped by a signal, so that their threads cannot spin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.loadgen.running import Entry, Running
from benchmarks.loadgen.systems import System

SCENARIOS = ("offline", "server", "single-stream", "batches")


def measure(
    systems: Sequence[tuple[System, dict[str, str]]],
    scenarios: Sequence[str],
    seconds: float,
    rounds: int,
    keep: Callable[[dict[str, Entry]], None],
) -> None:
    """Ask every system in every scenario; after each of them, `keep` is given each system's entry by its name."""
    with ExitStack() as ends:
        running = [ends.enter_context(Running(system, files, seconds)) for system, files in systems]
        entries = {one.system.name: one.entry for one in running}
        for one in running:
            one.guarded(Running.try_strategies)
        keep(entries)
        if "offline" in scenarios:
            _rounds(running, rounds, Running.offline)
            keep(entries)
        if "server" in scenarios:
            _rounds(running, 1, Running.try_for_server)
            # Until no system has a rate left to try.
            while _rounds(running, 1, Running.server):
                pass
            keep(entries)
        if "single-stream" in scenarios:
            _rounds(running, rounds, Running.single_stream)
            keep(entries)


def _rounds(running: list[Running], rounds: int, step: Callable[[Running], Any]) -> bool:
    """A step of every system, in each round; whether any has more to do."""
    more = False
    for number in range(rounds):
        turn = number % max(1, len(running))
        for one in running[turn:] + running[:turn]:
            more = one.guarded(step) or more
    return more
