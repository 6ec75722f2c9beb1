"""How glibc handles the memory that calls use and free.

In: nothing. Out: settings of the whole process. Refuses nothing: another C library, or a user who has chosen settings
in the environment, is left alone.

By default glibc gives large blocks, and the top of its heap, back to the system as soon as they are free. A call of a
model frees tensors of some megabytes all the time and asks for the same again; each then comes page by page, zeroed by
the kernel: thousands of page faults in a MiniLM call at 1x384 (tests/test_session.py counts them).
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

# Of mallopt(3). The largest block that comes from the heap (glibc admits no more), and how much of it may lie unused.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK, _MOST_UNUSED = 32 * 2**20, 256 * 2**20
_CHOSEN_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory_between_calls() -> None:
    """Let freed memory stay with the process, up to 256 MB of it."""
    mallopt = _libc("mallopt")
    if mallopt is not None and not any(name in os.environ for name in _CHOSEN_BY_USER):
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, _MOST_UNUSED)


def give_back_memory() -> None:
    """Return to the system what is unused now: what reading and packing weights needed, which no call will.

    Of a bert-base in bf16 with IPEX that is 180 MB of 660 (`make bench` measures what stays).
    """
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)


def _libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
