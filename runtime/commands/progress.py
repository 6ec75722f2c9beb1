"""A progress bar on standard error, shown only if that is a terminal and the results go elsewhere.

The only module that imports tqdm, which is installed with the package tokenizers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar that counts bytes.

    Args:
        total: the number of bytes; None if it is not known.
    """
    # If the results go to the terminal too, they show the progress, and a bar between them would be hard to read.
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda _: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        print("run-model: no progress bar: the package tqdm is not installed", file=sys.stderr)
        yield lambda _: None
        return
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, file=sys.stderr) as bar:
        yield bar.update
