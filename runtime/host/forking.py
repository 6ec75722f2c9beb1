"""Forked processes: who may still compute in the child, and what the parent does so that the child can.

A fork copies the memory and one thread. The threads of OpenMP, which compute in torch, stay behind; a child that calls
on them waits for ever. So a session that was loaded before the fork is refused in the child, unless torch uses one
thread there. What is loaded in the child starts threads of its own; for that the parent ends its OpenMP threads before
each fork (they come back with its next call).

`import runtime` registers this for `os.fork`; a fork made before it is not seen. `subprocess` and multiprocessing's
`spawn` start programs anew and are not concerned. Imports no torch.
"""

from __future__ import annotations

import ctypes
import os
import sys

from runtime.errors import ForkError

# OpenMP 5's `omp_pause_hard`: give up everything, threads included.
_PAUSE_HARD = 2

_forks = 0
_threads_ended = True


def process() -> int:
    """A number for this process that a forked child does not share."""
    return _forks


def check_session(loaded_in: int, threads: int) -> None:
    """That a session may compute here.

    Args:
        loaded_in: what `process` returned when it was loaded.
        threads: how many torch uses now.

    Raises:
        ForkError: the process was forked since, and there is more than one thread.
    """
    if loaded_in != _forks and threads > 1:
        raise ForkError(
            f"the session was loaded before this process was forked, and torch uses {threads} threads, which a fork "
            "leaves behind",
            "a session of this process",
            "load after the fork, or with threads=1",
        )


def check_pool(made_in: int) -> None:
    """That a pool's threads are in this process; `made_in` is what `process` returned when it was made.

    Raises:
        ForkError: the process was forked since.
    """
    if made_in != _forks:
        raise ForkError(
            "the pool was made before this process was forked, and its threads are in the parent",
            "a pool of this process",
            "load after the fork and make the pool there; a session loaded with threads=1 may be taken along",
        )


def check_load(threads: int) -> None:
    """That what is loaded here may start threads; `threads` is how many torch uses.

    Raises:
        ForkError: the parent's threads could not be ended before the fork, and there is more than one thread.
    """
    if _forks and not _threads_ended and threads > 1:
        raise ForkError(
            f"this process was forked from one that may have computed before, and torch uses {threads} threads here, "
            "which would wait for those that the fork left behind",
            "one thread",
            "load with threads=1, or fork before anything is computed",
        )


def watch() -> None:
    """Register what has to happen around forks; once for each process."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_child=_in_child)


def _before() -> None:
    global _threads_ended
    if "torch" not in sys.modules:
        return
    # torch makes its OpenMP's functions visible to the whole process. Compilers before GCC 9 have none for this.
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    # Not 0: the fork comes from within a parallel region.
    _threads_ended = pause is not None and pause(_PAUSE_HARD) == 0


def _in_child() -> None:
    global _forks
    _forks += 1
