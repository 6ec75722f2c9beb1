"""The library of native operators that the tests load: the one where the runtime looks for it, as for a user."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.host import native_build, native_library

ROOT = Path(__file__).parent.parent.parent


# Where `make install` compiles the operators; nothing that is there is compiled a second time for a test.
WORK = ROOT / "build/native"


@contextmanager
def alone_in_work() -> Iterator[Path]:
    """The folder, for this process alone; others wait."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield WORK


def built_library() -> Path:
    """The library for this torch, built anew if a source is newer; whoever runs tests beside this process waits.

    Raises:
        NativeLibraryError: it cannot be built.
    """
    library = native_library.native_library()
    with alone_in_work() as work:
        sources = [path for path in native_build.SOURCES.iterdir() if path.is_file()]
        newest = max(path.stat().st_mtime for path in sources)
        if not library.is_file() or library.stat().st_mtime < newest:
            native_build.build_native(work)
    return library
