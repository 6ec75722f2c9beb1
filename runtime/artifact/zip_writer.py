"""Write the records of an archive with the layout of PyTorch's own writer."""

from __future__ import annotations

import struct
import zipfile

# As in PyTorch's own writer, data starts at multiples of 64 bytes, after an extra field named "FB".
_ALIGNMENT = 64
_PADDING_FIELD = int.from_bytes(b"FB", "little")


def add_record(archive: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    """Write one record, its data aligned as PyTorch aligns it, so that a reader may map the file."""
    # A fixed date, the earliest that a zip can hold, so that equal exports give equal bytes.
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = compression
    assert archive.fp is not None
    # A local header has 30 bytes, the name, and extra fields, each of 4 bytes and its content.
    padding = -(archive.fp.tell() + 30 + len(name.encode()) + 4) % _ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
    archive.writestr(info, content)
