"""Settings of glibc's memory allocator that keep calls of a model fast.

By default glibc returns large blocks, and the top of its heap, to the system as soon as they are free. A call of a
model frees tensors of some megabytes all the time and asks for the same sizes again. Each of these then arrives page by
page, zeroed by the kernel: thousands of page faults in a MiniLM call at 1x384 (tests/test_session.py counts them).

Another C library, and settings that the user chose in the environment, are left alone.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

# Options of mallopt(3), and their values: the largest block that is allocated on the heap (glibc's maximum), and how
# much of the heap may stay unused.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK, _MOST_UNUSED = 32 * 2**20, 256 * 2**20
_CHOSEN_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory_between_calls() -> None:
    """Keep up to 256 MB of freed memory in the process."""
    mallopt = _libc("mallopt")
    if mallopt is not None and not any(name in os.environ for name in _CHOSEN_BY_USER):
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, _MOST_UNUSED)


def give_back_memory() -> None:
    """Return unused memory to the system: reading and packing weights needs memory that calls do not need.

    For a bert-base in bf16 with IPEX this is 180 MB of 660 (`make bench` measures what stays).
    """
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)


def _libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
