"""The zip's structure: ours and PyTorch's pass; whatever two readers could read differently does not."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtime.artifact import zip_reader
from runtime.artifact.zip_reader import Archive
from runtime.errors import NotAnArtifactError, UnsafeArchiveError

Files = list[tuple[str | zipfile.ZipInfo, bytes]]
PLAIN: Files = [("a/version", b"3\n"), ("a/code/m.py", b"x = 1\n"), ("a/data/0", b"\1" * 64)]
DEFLATED = zipfile.ZIP_DEFLATED


def open_archive(data: bytes) -> Archive:
    return Archive(io.BytesIO(data), "f.pt")


def made(files: Files = PLAIN, compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as new:
        for name, content in files:
            new.writestr(name, content)
        new.comment = comment
    return buffer.getvalue()


def info(name: str, **attributes: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def patched(data: bytes, number: int, at: int, form: str, value: int, local: int | None = None) -> bytes:
    """Change a field of a directory entry and, where `local` says where, of the local header."""
    changed, entries = bytearray(data), [i for i in range(len(data)) if data[i : i + 4] == b"PK\1\2"]
    struct.pack_into(form, changed, entries[number] + at, value)
    if local is not None:
        place = struct.unpack_from("<L", data, entries[number] + 42)[0]
        struct.pack_into(form, changed, place + local, value)
    return bytes(changed)


def test_ours_passes(tiny_artifact: Path, minilm_ipex: Path) -> None:
    for path in (tiny_artifact, minilm_ipex):
        with open(path, "rb") as file, zipfile.ZipFile(path) as known:
            mine = Archive(file, str(path))
            assert [f"{mine.top}/{name}" for name in mine.records] == known.namelist()
            for name in mine.records:
                assert mine.read(name, 2**30) == known.read(f"{mine.top}/{name}")


def test_pytorch_s_own_passes(tmp_path: Path) -> None:
    """With data descriptors, 64-bit ends and padding."""
    path = tmp_path / "linear.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path), _extra_files={"e": b"x" * 999})
    with open(path, "rb") as file:
        assert Archive(file, "f").read("extra/e", 999) == b"x" * 999


def test_python_s_own_passes() -> None:
    files: Files = [("a/code/m.py", b"x = 1\n" * 1000), ("a/data.pkl", b"")]
    assert open_archive(made(files, DEFLATED)).read("code/m.py", 6000) == b"x = 1\n" * 1000


@pytest.mark.parametrize(
    "names",
    [
        ["a/x", "a/x"],
        ["a/x", "a/X"],
        ["a/x", "b/x"],
        ["x"],
        ["/x"],
        ["a/../x"],
        ["a/./x"],
        ["a//x"],
        ["a/x/"],
        ["../a/x"],
        ["a/x\x01"],
        ["a/" + "x" * 2000],
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names(names: list[str]) -> None:
    with pytest.raises(UnsafeArchiveError):
        open_archive(made([(name, b"") for name in names]))


@pytest.mark.parametrize("byte", [b"\\", b"\0", b"\xff"])
def test_names_that_python_would_mend(byte: bytes) -> None:
    with pytest.raises(UnsafeArchiveError):
        open_archive(made([("a/x?y", b"")]).replace(b"a/x?y", b"a/x" + byte + b"y"))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "leading junk": lambda: b"junk" + made(),
    "a hidden end in the comment": lambda: made(comment=made()[-22:]),
    "no records": lambda: made([]),
    "a link": lambda: made([(info("a/x", external_attr=0o120777 << 16), b"/etc/passwd")]),
    "a folder": lambda: made([(info("a/x", external_attr=0x10), b"")]),
    "encrypted": lambda: patched(made(), 0, 8, "<H", 1, 6),
    "bzip2": lambda: made(compression=zipfile.ZIP_BZIP2),
    "lzma": lambda: made(compression=zipfile.ZIP_LZMA),
    "compressed weights": lambda: made([("a/data/0", bytes(5000))], DEFLATED),
    "an extra field that renames": lambda: made([(info("a/x", extra=b"\x75\x70\x01\x00x"), b"")]),  # type: ignore[arg-type]
    "half an extra field": lambda: made([(info("a/x", extra=b"FB\x09\x00x"), b"")]),  # type: ignore[arg-type]
    "a record's comment": lambda: made([(info("a/x", comment=b"c"), b"")]),  # type: ignore[arg-type]
    "sizes that differ": lambda: patched(made(), 2, 24, "<L", 65),
    "both sizes wrong": lambda: patched(patched(made(), 2, 24, "<L", 63, 22), 2, 20, "<L", 63, 18),
    "beyond the file": lambda: patched(patched(made(), 2, 24, "<L", 2**31, 22), 2, 20, "<L", 2**31, 18),
    "other checksum": lambda: patched(made(), 2, 16, "<L", 1),
    "overlap": lambda: patched(made(), 2, 42, "<L", 0),
    "another offset": lambda: patched(made(), 1, 42, "<L", 2**31),
    "another volume": lambda: patched(made(), 1, 34, "<H", 1),
    "a name that differs": lambda: made().replace(b"a/version", b"a/Version", 1),
    "a count too small": lambda: made()[:-14] + struct.pack("<2H", 2, 2) + made()[-10:],
    "a count too large": lambda: made()[:-14] + struct.pack("<2H", 4, 4) + made()[-10:],
    "a huge directory": lambda: made()[:-10] + struct.pack("<L", 2**31) + made()[-6:],
    "a directory elsewhere": lambda: made()[:-6] + struct.pack("<L", 2) + made()[-2:],
    "a bomb": lambda: made([("a/code/m.py", bytes(2**20))], DEFLATED),
    "much code": lambda: made([("a/code/m.py", random.Random(1).randbytes(2**21 + 1))]),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_zips(kind: str) -> None:
    with pytest.raises(UnsafeArchiveError, match=r"^f\.pt: "):
        open_archive(HOSTILE[kind]())


def test_a_gap_between_records() -> None:
    data = made()
    second, directory = data.index(b"PK\3\4", 1), data.index(b"PK\1\2")
    moved = data[:second] + b"evil" + data[second:]
    moved = moved[:-6] + struct.pack("<L", directory + 4) + moved[-2:]
    for number in (1, 2):
        offset = struct.unpack_from(
            "<L", data, [i for i in range(len(data)) if data[i : i + 4] == b"PK\1\2"][number] + 42
        )
        moved = patched(moved, number, 42, "<L", offset[0] + 4)
    with zipfile.ZipFile(io.BytesIO(moved)) as forgiving:
        assert forgiving.testzip() is None
    with pytest.raises(UnsafeArchiveError, match="right behind"):
        open_archive(moved)


@pytest.mark.parametrize("behind", [b"\0", b"PK", b"\0" * 22, made()[:-1], made(comment=b"hello")])
def test_trailing_junk_and_cuts(behind: bytes) -> None:
    with pytest.raises(NotAnArtifactError):
        open_archive(made() + behind)


def test_too_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_reader, "MAX_RECORDS", 2)
    with pytest.raises(UnsafeArchiveError, match="3 records"):
        open_archive(made())


def test_an_end_that_contradicts_its_longer_form(tmp_path: Path) -> None:
    path = tmp_path / "linear.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    data = path.read_bytes()
    with pytest.raises(UnsafeArchiveError, match="contradict"):
        open_archive(data[:-6] + struct.pack("<L", 7) + data[-2:])


@pytest.mark.parametrize("content", [b"x = 1\n" * 50, b""])
def test_a_stream_that_is_not_what_was_declared(content: bytes) -> None:
    """Longer, shorter, cut, or not deflate at all: found while reading, and never more than was declared is kept."""
    data = made([("a/code/m.py", content)], DEFLATED)
    with pytest.raises(NotAnArtifactError):
        open_archive(patched(data, 0, 24, "<L", len(content) + 1, 22)).read("code/m.py", 10**6)
    with pytest.raises(NotAnArtifactError):
        open_archive(patched(data, 0, 16, "<L", zlib.crc32(content) ^ 1, 14)).read("code/m.py", 10**6)
    broken = bytearray(data)
    broken[30 + len("a/code/m.py")] = 0xFF
    with pytest.raises(NotAnArtifactError):
        open_archive(bytes(broken)).read("code/m.py", 10**6)


def test_more_than_the_caller_admits() -> None:
    with pytest.raises(UnsafeArchiveError, match="declares 64 bytes; expected at most 63"):
        open_archive(made()).read("data/0", 63)
