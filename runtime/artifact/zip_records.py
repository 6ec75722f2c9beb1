"""Parse what a zip says about its directory and its records.

Nothing is raised here: problems are returned as text, for `runtime.artifact.zip_reader`, which knows the file's name.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
END_BYTES, END64_BYTES = _END.size, _END64.size + _LOCATOR.size
FLAG_DESCRIPTOR = 1 << 3
# Two bits for the compression level, a descriptor after the data, a name in UTF-8. Not allowed: encryption, patches.
_KNOWN_FLAGS = 0b110 | FLAG_DESCRIPTOR | 1 << 11
_KNOWN_METHODS = (0, 8)
# Extra fields: 64-bit sizes, and PyTorch's padding. Others could rename a record for some readers.
_ZIP64, _PADDING = 1, int.from_bytes(b"FB", "little")
_DOS_FOLDER = 0x10
MAX_NAME_BYTES = 1024


@dataclass(frozen=True)
class Entry:
    """A record as the directory describes it."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    offset: int

    @classmethod
    def parse(cls, directory: bytes, cursor: int) -> tuple[Entry, int, str]:
        """The entry at `cursor`, the position of the next one, and the entry's problem (empty if there is none)."""
        if directory[cursor : cursor + 4] != b"PK\1\2" or cursor + DIRECTORY_ENTRY.size > len(directory):
            return cls("?", b"", 0, 0, 0, 0, 0, 0), cursor, "a directory that does not hold what it counts"
        _, _, _, flags, method, _, _, crc, stored, size, name_length, extra_length, comment, disk, _, attributes, at = (
            DIRECTORY_ENTRY.unpack_from(directory, cursor)
        )
        begin = cursor + DIRECTORY_ENTRY.size
        raw = directory[begin : begin + name_length]
        extra = directory[begin + name_length : begin + name_length + extra_length]
        long = _long(extra)
        if size == 0xFFFFFFFF and long:
            size, *long = long
        if stored == 0xFFFFFFFF and long:
            stored, *long = long
        if at == 0xFFFFFFFF and long:
            at, *long = long
        problem = extra_problem(extra)
        if long:
            problem = "a long size that is not needed"
        if flags & ~_KNOWN_FLAGS:
            problem = f"flags {flags:#x}: encryption or others that are unknown"
        if method not in _KNOWN_METHODS:
            problem = f"compression method {method}"
        if comment or disk:
            problem = "a comment, or a record on another volume"
        if stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG) or attributes & _DOS_FOLDER:
            problem = "a link, a folder or a device"
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            name, problem = "?", "a name that is not UTF-8"
        entry = cls(name, raw, flags, method, crc, stored, size, at)
        return entry, begin + name_length + extra_length + comment, problem


def parse_end(before: bytes, tail: bytes, end: int) -> tuple[int, int, int, int, str]:
    """The positions of the end records and of the directory, its size and number of entries, and the problem or "".

    `tail` is the end record, at byte `end`; `before` are the bytes before it, where its 64-bit form may be.
    """
    _, disk, first_disk, count_on_disk, count, size, start, comment = _END.unpack(tail)
    problem = ""
    # Readers use the 64-bit form if its locator is there, so both forms must agree.
    if len(before) == END64_BYTES and before[_END64.size :].startswith(b"PK\6\7"):
        end -= END64_BYTES
        _, disk64, place, disks = _LOCATOR.unpack_from(before, _END64.size)
        sign, length, _, _, *long = _END64.unpack_from(before)
        short = [disk, first_disk, count_on_disk, count, size, start]
        most = [0xFFFF] * 4 + [0xFFFFFFFF] * 2
        if (sign, length, place, disk64, disks) != (b"PK\6\6", _END64.size - 12, end, 0, 1) or any(
            a not in (b, c) for a, b, c in zip(short, long, most, strict=True)
        ):
            problem = "two ends that contradict each other"
        disk, first_disk, count_on_disk, count, size, start = long
    if (disk, first_disk, comment) != (0, 0, 0) or count_on_disk != count:
        problem = "a comment or several volumes"
    return end, start, size, count, problem


def sizes(extra: bytes, size: int, stored: int) -> tuple[int, int]:
    """The stored size and the size of a local header, in 64 bits if the 32-bit fields refer to the extra field."""
    long = _long(extra)
    if size == 0xFFFFFFFF and long:
        size, *long = long
    if stored == 0xFFFFFFFF and long:
        stored, *long = long
    return stored, size


def check_name(name: str) -> str:
    """The problem of a record's name, or an empty string."""
    if len(name.encode()) > MAX_NAME_BYTES:
        return "too long"
    if "\\" in name or not name.isprintable():
        return "backslashes or control characters"
    folders = name.split("/")
    if len(folders) < 2:
        return "outside the top folder"
    if any(part in ("", ".", "..") for part in folders):
        return "absolute, a folder, or leading elsewhere"
    return ""


def extra_problem(extra: bytes) -> str:
    """The problem of the extra fields, or an empty string."""
    while extra:
        kind, length = struct.unpack_from("<HH", extra) if len(extra) >= 4 else (0, 0)
        if kind not in (_ZIP64, _PADDING) or 4 + length > len(extra):
            return "extra fields that PyTorch does not write"
        extra = extra[4 + length :]
    return ""


def _long(extra: bytes) -> list[int]:
    """The numbers in the extra field of 64-bit sizes, if there is one."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _ZIP64:
            body = extra[4 : 4 + length]
            return [int.from_bytes(body[i : i + 8], "little") for i in range(0, len(body) - 7, 8)]
        extra = extra[4 + length :]
    return []
