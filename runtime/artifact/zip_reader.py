"""Read the zip of an artifact strictly, before any other reader sees it.

NotAnArtifactError is raised if the file is no zip or was cut short; UnsafeArchiveError if two readers could understand
the zip differently, or if it promises more than it holds. The size of each record is checked before it is read.

Python's and PyTorch's readers tolerate different mistakes, so only a form that both read alike is accepted: records
follow each other from the first byte to the directory, without gaps and in the directory's order; both descriptions of
a record agree; there is nothing before, between or behind them. PyTorch's writer and `runtime.artifact.artifact_file`
write exactly this form.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from runtime.artifact.zip_records import (
    END64_BYTES,
    END_BYTES,
    FLAG_DESCRIPTOR,
    LOCAL_HEADER,
    Entry,
    check_name,
    extra_problem,
    parse_end,
    sizes,
)
from runtime.errors import NotAnArtifactError, UnsafeArchiveError

# Far above what real models have (hundreds of records, a directory of some kilobytes).
MAX_RECORDS = 20_000
MAX_DIRECTORY_BYTES = 8 * 2**20
# Code and pickles: 24 layers are some tens of kilobytes, and parsing takes many times their size in memory.
MAX_CODE_BYTES = 2 * 2**20
# Only code is compressed; weights, which are most of a file, are stored as they are.
MAX_EXPANSION = 100

STORED, DEFLATED = 0, 8
_BLOCK = 2**20
_REMEDY = "copy the file again, or export the model again"


@dataclass(frozen=True)
class Record:
    """One file in the archive: where its bytes start, their number, and the number after decompression."""

    name: str
    start: int
    stored: int
    size: int
    deflated: bool
    crc: int


class Archive:
    """A zip whose structure was checked. `records` maps names without the top folder, in the archive's order.

    Args:
        file: opened for reading in binary. It stays open, and nothing else reads it while the archive is in use.
        origin: the file's name in errors.

    Raises:
        NotAnArtifactError, UnsafeArchiveError: see the module's docstring.
    """

    def __init__(self, file: BinaryIO, origin: str) -> None:
        self.file, self.origin, self.top = file, origin, ""
        self._reading = threading.Lock()
        self.bytes = file.seek(0, os.SEEK_END)
        self.records: dict[str, Record] = {}
        start, directory, count = self._directory()
        place, cursor, seen = 0, 0, set()
        for _ in range(count):
            entry, cursor, problem = Entry.parse(directory, cursor)
            if problem or cursor > len(directory):
                self.refuse(problem or "an entry that reaches beyond the directory", "a record as PyTorch writes it")
            top, _, name = entry.name.partition("/")
            # PyTorch ignores case when it looks up records.
            if name.lower() in seen:
                self.refuse(f"two records named {entry.name!r}", "each name once")
            if top != (self.top or top):
                self.refuse(f"the top folders {self.top!r} and {top!r}", "one")
            seen.add(name.lower())
            self.top = top
            self.records[name], place = self._record(entry, name, place, start)
        if cursor != len(directory) or place != start:
            self.refuse("bytes that belong to no record", "records and a directory that fill the file")
        total = sum(record.size for record in self.records.values())
        if total > MAX_EXPANSION * self.bytes:
            self.refuse(f"records of {total} bytes in a file of {self.bytes}", f"at most {MAX_EXPANSION} times as many")

    def read(self, name: str, limit: int) -> bytes:
        """The whole record, of at most `limit` bytes.

        Raises:
            NotAnArtifactError: the bytes do not match their checksum.
            UnsafeArchiveError: the record is larger than `limit`.
        """
        if self.records[name].size > limit:
            self.refuse(f"{name} declares {self.records[name].size} bytes", f"at most {limit}")
        return b"".join(self.blocks(name))

    def whole(self) -> bytes:
        """The whole file."""
        return self._at(0, self.bytes)

    def blocks(self, name: str, checksum: bool = True) -> Iterator[bytes]:
        """The record's bytes, a megabyte at a time. Size and checksum are checked after the last block.

        Without `checksum`, for callers that compare a digest, only the size is checked.
        """
        record = self.records[name]
        crc, size, left, place = 0, 0, record.stored, record.start
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if record.deflated else None
        pending = b""
        while left or pending or (inflate is not None and not inflate.eof):
            if not pending and left:
                pending = self._at(place, min(left, _BLOCK))
                place, left = place + len(pending), left - len(pending)
            if inflate is None:
                block, pending = pending, b""
            else:
                try:
                    block = inflate.decompress(pending, _BLOCK)
                except zlib.error as error:
                    self._damaged(f"{name} cannot be read ({error})")
                if not (block or left or inflate.unconsumed_tail or inflate.eof):
                    self._damaged(f"{name} ends within its compressed data")
                pending = inflate.unconsumed_tail
            crc, size = zlib.crc32(block, crc) if checksum else crc, size + len(block)
            if size > record.size or (inflate is not None and inflate.unused_data):
                self._damaged(f"{name} holds more than the {record.size} bytes that it declares")
            yield block
        if size != record.size or (checksum and crc != record.crc):
            self._damaged(f"{name} does not fit its CRC or its size")

    def refuse(self, found: str, expected: str) -> NoReturn:
        """Raise UnsafeArchiveError, naming the file."""
        raise UnsafeArchiveError(f"{self.origin}: {found}", expected, _REMEDY)

    def _damaged(self, found: str) -> NoReturn:
        raise NotAnArtifactError(f"{self.origin}: {found}", "", _REMEDY)

    def _at(self, place: int, count: int) -> bytes:
        # Several threads compute digests and share the file's position.
        with self._reading:
            self.file.seek(place)
            data = self.file.read(count)
        if len(data) != count:
            self._damaged("the file ends too early")
        return data

    def _directory(self) -> tuple[int, bytes, int]:
        """The position of the directory, its bytes, and the number of entries that it declares."""
        end = self.bytes - END_BYTES
        tail = self._at(end, END_BYTES) if end >= 0 else b""
        if not tail.startswith(b"PK\5\6"):
            raise NotAnArtifactError(
                f"{self.origin} is not a zip archive, or was cut short", "a TorchScript file", _REMEDY
            )
        before = max(0, end - END64_BYTES)
        end, start, size, count, problem = parse_end(self._at(before, end - before), tail, end)
        if problem:
            self.refuse(problem, "one directory, at the end")
        if not 0 < count <= MAX_RECORDS or size > MAX_DIRECTORY_BYTES:
            self.refuse(f"{count} records in a directory of {size} bytes", f"1 to {MAX_RECORDS}")
        if start + size != end:
            self.refuse("a directory that is not where the file says", "nothing between the records and the end")
        return start, self._at(start, size), count

    def _record(self, entry: Entry, name: str, place: int, limit: int) -> tuple[Record, int]:
        """Compare the two descriptions of a record; return it and the position where the next one must begin."""
        if problem := check_name(entry.name):
            self.refuse(f"a record named {entry.name[:80]!r} ({problem})", "a plain relative path")
        if entry.offset != place or place + LOCAL_HEADER.size > limit:
            self.refuse(f"{name} begins at byte {entry.offset}", f"{place}, right behind the record before it")
        sign, _, flags, method, _, _, crc, stored, size, name_length, extra_length = LOCAL_HEADER.unpack(
            self._at(place, LOCAL_HEADER.size)
        )
        start = place + LOCAL_HEADER.size + name_length + extra_length
        if start + entry.stored > limit:
            self.refuse(f"{name} declares {entry.stored} stored bytes", f"what fits before byte {limit}")
        rest = self._at(place + LOCAL_HEADER.size, name_length + extra_length)
        stored, size = sizes(rest[name_length:], size, stored)
        described = (flags, method, rest[:name_length], crc, stored, size)
        end = start + entry.stored
        expected = (entry.flags, entry.method, entry.raw_name, entry.crc, entry.stored, entry.size)
        if flags & FLAG_DESCRIPTOR:
            # The sizes were not known when the header was written: it has zeros, and they follow the data.
            expected = (*expected[:3], 0, 0, 0)
            form = "<4sL2Q" if max(entry.stored, entry.size) > 0xFFFFFFFF else "<4s3L"
            length = struct.calcsize(form)
            if end + length > limit or struct.unpack(form, self._at(end, length)) != (
                b"PK\7\x08",
                *(entry.crc, entry.stored, entry.size),
            ):
                self.refuse(f"{name} is described differently behind its data", "the same sizes everywhere")
            end += length
        if sign != b"PK\3\4" or described != expected or extra_problem(rest[name_length:]):
            self.refuse(f"{name} is described differently in its header and in the directory", "the same twice")
        code = name.startswith("code/") or name.endswith(".pkl")
        if entry.method == STORED and entry.stored != entry.size or entry.method == DEFLATED and not code:
            self.refuse(f"{name}: {entry.stored} bytes that become {entry.size}", "as many, compressed code excepted")
        if code and entry.size > MAX_CODE_BYTES:
            self.refuse(f"{name} declares {entry.size} bytes of code", f"at most {MAX_CODE_BYTES}")
        return Record(name, start, entry.stored, entry.size, entry.method == DEFLATED, entry.crc), end
