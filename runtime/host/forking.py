"""What a forked child process may compute, and what the parent does before a fork so that the child can compute.

A fork copies the memory and one thread. The OpenMP threads with which torch computes are not copied, and a child that
waits for them hangs. So a session that was loaded before the fork is refused in the child, unless torch uses one thread
there. A session that is loaded in the child starts threads of its own; for this the parent ends its OpenMP threads
before each fork (its next call starts them again).

`import runtime` registers this for `os.fork`; earlier forks are not seen. `subprocess` and multiprocessing's `spawn`
start new programs and are not affected. Imports no torch.
"""

from __future__ import annotations

import ctypes
import os
import sys

from runtime.errors import ForkError

# OpenMP 5's `omp_pause_hard`: release all resources, including threads.
_PAUSE_HARD = 2

_forks = 0
_threads_ended = True


def process() -> int:
    """A number that differs between this process and the children it forks."""
    return _forks


def check_session(loaded_in: int, threads: int) -> None:
    """Check that a session may compute in this process.

    Args:
        loaded_in: what `process` returned when the session was loaded.
        threads: torch's thread count now.

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
    """Check that a pool's threads are in this process; `made_in` is what `process` returned when it was made.

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
    """Check that a session loaded in this process may start threads; `threads` is torch's thread count.

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
    """Register the functions that run around forks; called once, at import."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_child=_in_child)


def _before() -> None:
    global _threads_ended
    if "torch" not in sys.modules:
        return
    # The OpenMP library that torch loads is visible to the whole process. Before GCC 9 it lacks this function.
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    # Not 0 if the fork is made within a parallel region.
    _threads_ended = pause is not None and pause(_PAUSE_HARD) == 0


def _in_child() -> None:
    global _forks
    _forks += 1
