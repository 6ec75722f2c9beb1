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
# The longest path that Linux accepts; a longer string is not a path, and not shown.
_LONGEST_PATH = 4096


@contextmanager
def open_archive(source: Source | Archive) -> Iterator[Archive]:
    """Open the file and check its structure; an archive that is open already is passed through.

    Args:
        source: a path; or the content, as bytes (`bytearray` and `memoryview` are copied); or a file object opened for
            reading in binary, which is read to its end and not closed. If it can seek, it is read from its beginning,
            and its position is restored afterwards; otherwise it is read from its current position.

    Raises:
        ArtifactNotFoundError: there is no such file, or it cannot be read.
        NotAnArtifactError: it is not a zip archive, or was cut short.
        UnsafeArchiveError: the zip could be read in two ways.
        DigestError: the file was written to meanwhile.
    """
    if isinstance(source, Archive):
        yield source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        # `bytes` of a bytes object makes no copy.
        yield Archive(io.BytesIO(bytes(source)), "the artifact in memory")
    elif isinstance(source, (str, os.PathLike)):
        with open_file(source) as file:
            name = path_name(source)
            before = os.fstat(file.fileno())
            yield Archive(file, name)
            after = os.fstat(file.fileno())
            # If the file is replaced, the open one stays unchanged; writing into it is what must be noticed.
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise DigestError(
                    f"{name} was written to while it was read", "a file that stays as it is", "copy it again"
                )
    else:
        yield Archive(_copy(source), "the artifact from a file object")


@contextmanager
def open_file(path: PathLike) -> Iterator[BinaryIO]:
    """Open the file for reading.

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
    """A path to the open file, for readers that need a path; None for bytes, or if the system has no such path.

    It leads to the file that was checked, even if the original path now leads to another one.
    """
    if isinstance(archive.file, io.BytesIO) or sys.platform != "linux":
        return None
    link = f"/proc/self/fd/{archive.file.fileno()}"
    return link if Path(link).exists() else None


def path_name(path: PathLike) -> str:
    """A path as errors show it.

    Raises:
        ArtifactNotFoundError: it is not a path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArtifactNotFoundError(f"the path is a {type(path).__name__}", "a string or a path")
    name = os.fsdecode(path)
    return name if len(name) <= _LONGEST_PATH else f"a path of {len(name)} characters"


def _copy(file: BinaryIO) -> io.BytesIO:
    """The content of a file object."""
    expected = "a path, bytes, or a file object opened for reading in binary"
    if not hasattr(file, "read"):
        raise ArtifactNotFoundError(f"the artifact is given as {_kind(file)}", expected)
    if isinstance(file, io.TextIOBase):
        raise ArtifactNotFoundError(f"the {type(file).__name__} reads text", expected, "open the file with mode 'rb'")
    copy = io.BytesIO()
    try:
        # Objects from the client of a store may have no other method than `read`.
        start = file.tell() if hasattr(file, "seekable") and file.seekable() else None
        if start is not None:
            file.seek(0)
        while block := file.read(_BLOCK):
            copy.write(block)
        if start is not None:
            file.seek(start)
    # TypeError: `read` does not return bytes; ValueError: the file is closed.
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactNotFoundError(f"cannot read the {type(file).__name__}: {reason}", expected) from error
    return copy


def _kind(value: object) -> str:
    return shown(value) if value is None or isinstance(value, (int, float)) else f"a {type(value).__name__}"
