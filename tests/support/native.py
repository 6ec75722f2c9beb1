"""The library of native operators that the tests load: the one where the runtime looks for it, as for a user."""

from __future__ import annotations

import fcntl
from pathlib import Path

from runtime.host import native_build, native_library

ROOT = Path(__file__).parent.parent.parent


def built_library() -> Path:
    """The library for this torch, built anew if a source is newer; whoever runs tests beside this process waits.

    Raises:
        NativeLibraryError: it cannot be built.
    """
    work = ROOT / "build/native"
    work.mkdir(parents=True, exist_ok=True)
    library = native_library.native_library()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = [path for path in native_build.SOURCES.iterdir() if path.is_file()]
        newest = max(path.stat().st_mtime for path in sources)
        if not library.is_file() or library.stat().st_mtime < newest:
            native_build.build_native(work)
    return library
