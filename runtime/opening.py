"""Open an artifact's file once, for everything that is read from it.

In: a path, or an `Archive` that is open already. Out: an `Archive`. Refuses what cannot be opened or is no sound zip
(`runtime.archive`), and a file that was written to meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from runtime.archive import Archive
from runtime.errors import ArtifactNotFoundError, DigestError

PathLike = str | os.PathLike[str]


@contextmanager
def opened(source: PathLike | Archive) -> Iterator[Archive]:
    """The file, opened once and its structure checked; an archive that is open already is passed through.

    Raises:
        ArtifactNotFoundError, NotAnArtifactError, UnsafeArchiveError: no such file; no zip archive, or cut short; a zip
            that could be read in two ways.
        DigestError: the file was written to in the meantime.
    """
    if isinstance(source, Archive):
        yield source
        return
    name = os.fspath(source)
    with open_file(source) as file:
        before = os.fstat(file.fileno())
        yield Archive(file, name)
        after = os.fstat(file.fileno())
        # Replacing a file leaves the open one as it is; writing into it does not.
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DigestError(f"{name} was written to while it was read", "a file that stays as it is", "copy it again")


@contextmanager
def open_file(path: PathLike) -> Iterator[BinaryIO]:
    """The file itself, opened for reading.

    Raises:
        ArtifactNotFoundError: it is not there, or cannot be opened.
    """
    name = os.fspath(path)
    try:
        file = open(path, "rb")  # noqa: SIM115
        file.seek(0, os.SEEK_END)
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(f"there is no file {name}", "", "check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactNotFoundError(f"cannot open {name}: {reason}", "a file that can be read") from error
    with file:
        yield file
