"""Open an artifact once, for everything that is read from it: by a path, from bytes, or from a file object.

Bytes and file objects are for models that are kept encrypted or in a store. What was checked is what is loaded: `bytes`
cannot change, everything else that is not a path is copied first, and a file that changes while it is open is refused.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runtime.artifact.zip_reader import Archive
from runtime.errors import ArtifactNotFoundError, DigestError
from runtime.printing import shown

PathLike = str | os.PathLike[str]
# A path, the content of a file, or a file object opened for reading in binary. `bytes` are content, never a path.
Source = PathLike | bytes | bytearray | memoryview | BinaryIO

_BLOCK = 2**20
# Linux takes no longer path; a longer string is no path, and not shown.
_LONGEST_PATH = 4096


@contextmanager
def open_archive(source: Source | Archive) -> Iterator[Archive]:
    """The file, opened once and its structure checked; an archive that is open already is passed through.

    Args:
        source: a path; or the content, as bytes (`bytearray` and `memoryview` are copied); or a file object opened for
            reading in binary, which is read to its end and not closed. Where it can seek it is read from its beginning,
            wherever it stands, and then put back to where it stood; else from where it stands.

    Raises:
        ArtifactNotFoundError, NotAnArtifactError, UnsafeArchiveError: no such file, or nothing that can be read; no zip
            archive, or cut short; a zip that could be read in two ways.
        DigestError: the file was written to in the meantime.
    """
    if isinstance(source, Archive):
        yield source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        # Of what are bytes already this makes no copy.
        yield Archive(io.BytesIO(bytes(source)), "the artifact in memory")
    elif isinstance(source, (str, os.PathLike)):
        with open_file(source) as file:
            name = path_name(source)
            before = os.fstat(file.fileno())
            yield Archive(file, name)
            after = os.fstat(file.fileno())
            # Replacing a file leaves the open one as it is; writing into it does not.
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise DigestError(
                    f"{name} was written to while it was read", "a file that stays as it is", "copy it again"
                )
    else:
        yield Archive(_copied(source), "the artifact from a file object")


@contextmanager
def open_file(path: PathLike) -> Iterator[BinaryIO]:
    """The file itself, opened for reading.

    Raises:
        ArtifactNotFoundError: it is not there, or cannot be opened.
    """
    name = path_name(path)
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


def link_to(archive: Archive) -> str | None:
    """The open file by another name, for readers that want a path; None where the system has none, or for memory.

    What is read through it is what was checked, whatever the path now leads to.
    """
    if isinstance(archive.file, io.BytesIO) or sys.platform != "linux":
        return None
    link = f"/proc/self/fd/{archive.file.fileno()}"
    return link if Path(link).exists() else None


def path_name(path: PathLike) -> str:
    """A path as errors show it; what is too long to be one is not shown.

    Raises:
        ArtifactNotFoundError: it is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArtifactNotFoundError(f"the path is a {type(path).__name__}", "a string or a path")
    name = os.fsdecode(path)
    return name if len(name) <= _LONGEST_PATH else f"a path of {len(name)} characters"


def _copied(file: BinaryIO) -> io.BytesIO:
    """All that a file object holds."""
    expected = "a path, bytes, or a file object opened for reading in binary"
    if not hasattr(file, "read"):
        raise ArtifactNotFoundError(f"the artifact is given as {_kind(file)}", expected)
    if isinstance(file, io.TextIOBase):
        raise ArtifactNotFoundError(f"the {type(file).__name__} reads text", expected, "open the file with mode 'rb'")
    copy = io.BytesIO()
    try:
        # Objects that a store's client returns may know `read` alone.
        start = file.tell() if hasattr(file, "seekable") and file.seekable() else None
        if start is not None:
            file.seek(0)
        while block := file.read(_BLOCK):
            copy.write(block)
        if start is not None:
            file.seek(start)
    # TypeError: it reads something else; ValueError: it is closed.
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactNotFoundError(f"cannot read the {type(file).__name__}: {reason}", expected) from error
    return copy


def _kind(value: object) -> str:
    return shown(value) if value is None or isinstance(value, (int, float)) else f"a {type(value).__name__}"
