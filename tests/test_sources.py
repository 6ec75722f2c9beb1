"""An artifact as a path, as bytes or as a file object; and wrong arguments of `runtime.load`."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime import Session, load, read_manifest
from runtime.artifact import artifact_file
from runtime.errors import (
    ArtifactNotFoundError,
    DigestError,
    ExportedModelError,
    KeyFileError,
    NotAnArtifactError,
    SignatureError,
    ThreadCountError,
)

IDS = torch.tensor([[5, 6, 7, 8]])


class Stream(io.RawIOBase):
    """A file object as from the client of a store: it can be read once, in order, in pieces of any size."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._rest.read(min(size, 1000) if size > 0 else -1)


class OnlyRead:
    def __init__(self, content: bytes) -> None:
        self.read = io.BytesIO(content).read


class FromBytes(os.PathLike[bytes]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self._path)


def with_gaps(content: bytes) -> memoryview:
    spread = bytearray(2 * len(content))
    spread[::2] = content
    return memoryview(spread)[::2]


SOURCES: dict[str, Callable[[Path], Any]] = {
    "string": str,
    "path": Path,
    "path of bytes": FromBytes,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "memoryview with gaps": lambda path: with_gaps(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "stream": lambda path: Stream(path.read_bytes()),
    "only read": lambda path: OnlyRead(path.read_bytes()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_source_gives_the_same_answers(tiny_artifact: Path, tiny_session: Session, kind: str) -> None:
    assert read_manifest(SOURCES[kind](tiny_artifact)) == tiny_session.manifest
    session = load(SOURCES[kind](tiny_artifact), warmup=False)
    assert torch.equal(session(input_ids=IDS)["logits"], tiny_session(input_ids=IDS)["logits"])


@pytest.fixture(params=["open", "unbuffered", "temporary", "BytesIO"])
def file(tiny_artifact: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "BytesIO":
        yield io.BytesIO(tiny_artifact.read_bytes())
    elif request.param == "temporary":
        with tempfile.TemporaryFile() as made:
            made.write(tiny_artifact.read_bytes())
            yield made
    else:
        with open(tiny_artifact, "rb", buffering=0 if request.param == "unbuffered" else -1) as opened:
            yield opened


def test_a_file_object_is_read_from_its_beginning_and_left_where_it_stood(file: Any, tiny_session: Session) -> None:
    for place in (0, 100, file.seek(0, os.SEEK_END)):
        file.seek(place)
        assert read_manifest(file) == tiny_session.manifest
        assert file.tell() == place and not file.closed
    assert torch.equal(load(file)(input_ids=IDS)["logits"], tiny_session(input_ids=IDS)["logits"])
    assert not file.closed


def test_a_stream_is_read_from_where_it_stands(tiny_artifact: Path, tiny_session: Session) -> None:
    stream = Stream(b"header" + tiny_artifact.read_bytes())
    assert stream.read(6) == b"header"
    assert read_manifest(stream) == tiny_session.manifest  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "BytesIO", "stream"])
def test_the_same_checks(tiny_artifact: Path, kind: str, tmp_path: Path) -> None:
    content = bytearray(tiny_artifact.read_bytes())
    damaged = tmp_path / "damaged.pt"
    weights = content.index(b"archive/constants/0") + 200
    content[weights] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DigestError, match="not the part that was sealed"):
        load(SOURCES[kind](damaged))
    with pytest.raises(DigestError, match="has sha256"):
        load(SOURCES[kind](tiny_artifact), sha256="0" * 64)
    key = tmp_path / "key.pem"
    key.write_bytes(PUBLIC_KEY)
    with pytest.raises(SignatureError, match="is not signed"):
        load(SOURCES[kind](tiny_artifact), verify_key=key)
    damaged.write_bytes(content[:-10])
    with pytest.raises(NotAnArtifactError, match="cut short"):
        read_manifest(SOURCES[kind](damaged))


PUBLIC_KEY = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


def test_a_buffer_that_is_changed_after_its_check(tiny_artifact: Path, tiny_session: Session) -> None:
    """The buffer is changed after the manifest was read; what was checked is what is loaded."""
    buffer = bytearray(tiny_artifact.read_bytes())
    with artifact_file.open_archive(buffer) as archive:
        artifact_file.read_manifest(archive)
        buffer[:] = bytes(len(buffer))
        session = load(archive)
    assert torch.equal(session(input_ids=IDS)["logits"], tiny_session(input_ids=IDS)["logits"])


def test_an_error_does_not_show_the_content() -> None:
    for secret in (b"the content of a file" * 1000, "the content of a file" * 1000):
        with pytest.raises(ExportedModelError) as raised:
            load(secret)
        assert "the content of a file" not in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "given as None; expected a path, bytes, or a file object"),
        (5, "given as 5"),
        (True, "given as True"),
        (1.5, "given as 1.5"),
        (["model.pt"], "given as a list"),
        (io.StringIO("text"), "the StringIO reads text; expected .* open the file with mode 'rb'"),
        (b"", "the artifact in memory is not a zip archive"),
        (io.BytesIO(), "the artifact from a file object is not a zip archive"),
        ("", "there is no file"),
        ("a\0b", r"cannot open a\\x00b: embedded null byte"),
    ],
)
def test_what_is_no_artifact(source: Any, message: str) -> None:
    for function in (read_manifest, load):
        with pytest.raises((ArtifactNotFoundError, NotAnArtifactError), match=message):
            function(source)


def test_files_that_cannot_be_read(tiny_artifact: Path, tmp_path: Path) -> None:
    with open(tiny_artifact, "rb") as closed:
        pass
    with pytest.raises(ArtifactNotFoundError, match="cannot read the BufferedReader: .*closed file"):
        read_manifest(closed)
    with open(tmp_path / "x", "wb") as file, pytest.raises(ArtifactNotFoundError, match="cannot read .*: "):
        read_manifest(file)
    with open(tiny_artifact, errors="replace") as text, pytest.raises(ArtifactNotFoundError, match="reads text"):
        read_manifest(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "threads", [True, False, 0, -1, 1.0, "2", 10**6, pytest.param(10**5000, id="huge"), b"1", [1], float("nan")]
)
def test_thread_counts_that_are_none(tiny_artifact: Path, threads: Any) -> None:
    before = torch.get_num_threads()
    with pytest.raises(ThreadCountError, match=r"threads is .*; expected a whole number from 1 to"):
        load(tiny_artifact, threads=threads)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("digest", [b"0" * 64, 5, "", "0" * 63, "z" * 64, ["0" * 64], True])
def test_digests_that_are_none(tiny_artifact: Path, digest: Any) -> None:
    with pytest.raises(DigestError, match="sha256 is .*; expected 64 hexadecimal digits"):
        load(tiny_artifact, sha256=digest)


@pytest.mark.parametrize("key", [5, True, b"key.pem", ["key.pem"], "no.pem", "a\0b", "."])
def test_keys_that_are_none(tiny_artifact: Path, key: Any) -> None:
    with pytest.raises(KeyFileError, match="; expected .*key in PEM"):
        load(tiny_artifact, verify_key=key)
