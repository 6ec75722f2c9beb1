"""The file: damaged, foreign and newer ones are refused by name; plain TorchScript reads ours."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import BIN, ROOT, run

from runtime import artifact, load, read_manifest
from runtime.errors import (
    ArtifactNotFoundError,
    FormatVersionError,
    ManifestDamagedError,
    ManifestMissingError,
    NotAnArtifactError,
)

Copy = Callable[[Path], Path]


def rewrite(source: Path, target: Path, parts: dict[str, bytes | None]) -> Path:
    """Copy a zip, replacing (or, with None, leaving out) the parts named by their last path component."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = parts.get(info.filename.rsplit("/", 1)[-1], old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return target


def test_plain_torchscript_loads_it_with_its_extra_files(tiny_artifact: Path) -> None:
    extra = {"format_version": "", "manifest.json": ""}
    module = torch.jit.load(str(tiny_artifact), _extra_files=extra)
    assert extra["format_version"] == b"1"
    assert json.loads(extra["manifest.json"])["task"] == "text-classification"
    ids = torch.tensor([[5, 6, 7]])
    by_name = module(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids))
    assert isinstance(by_name, tuple) and by_name[0].shape == (1, 3)


def test_the_same_export_gives_the_same_bytes(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """In fresh processes: within one, TorchScript numbers the classes that it has seen."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    for name in ("a.pt", "b.pt"):
        done = run([BIN / "export-model", folder, "--backend", "plain", "-q", "-o", tmp_path / name])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_file_says_nothing_of_the_machine_that_made_it(minilm_bf16: Path) -> None:
    """No debug records, which hold source lines and paths; tensors lie where a reader can map them."""
    whole = minilm_bf16.read_bytes()
    assert b".debug_pkl" not in whole and str(ROOT).encode() not in whole
    with zipfile.ZipFile(minilm_bf16) as archive:
        for info in archive.infolist():
            assert (whole[info.header_offset + 26 :][:2], info.date_time[0]) == (
                len(info.filename).to_bytes(2, "little"),
                1980,
            )
            extra = int.from_bytes(whole[info.header_offset + 28 :][:2], "little")
            assert (info.header_offset + 30 + len(info.filename) + extra) % 64 == 0


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"nothing\.pt"):
        read_manifest(tmp_path / "nothing.pt")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="cannot open"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", os.urandom(5000)])
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(NotAnArtifactError, match="not a zip archive"):
        load(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 0.99999])
def test_cut_short(tiny_artifact: Path, tmp_path: Path, share: float) -> None:
    whole = tiny_artifact.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(NotAnArtifactError):
        load(path)


def test_a_torchscript_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    with pytest.raises(ManifestMissingError, match="format_version"):
        load(path)


def test_a_draft_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    draft = rewrite(tiny_artifact, tmp_path / "draft.pt", {"manifest.json": None})
    with pytest.raises(ManifestMissingError, match=r"manifest\.json"):
        load(draft)


def test_a_newer_format_is_refused_with_both_numbers(tiny_artifact: Path, tmp_path: Path) -> None:
    newer = rewrite(tiny_artifact, tmp_path / "newer.pt", {"format_version": b"2", "manifest.json": b"of the future"})
    with pytest.raises(FormatVersionError, match="format version 2; expected at most 1"):
        load(newer)


@pytest.mark.parametrize("version", [b"", b"one", b"-1", b"1.0", b"9" * 5000, "１".encode()])
def test_a_format_version_that_is_no_number(tiny_artifact: Path, tmp_path: Path, version: bytes) -> None:
    path = rewrite(tiny_artifact, tmp_path / "odd.pt", {"format_version": version})
    with pytest.raises(ManifestDamagedError, match="format_version"):
        load(path)


def test_a_damaged_manifest(tiny_artifact: Path, tmp_path: Path) -> None:
    path = rewrite(tiny_artifact, tmp_path / "damaged.pt", {"manifest.json": b'{"task": 1}'})
    with pytest.raises(ManifestDamagedError):
        load(path)


def test_flipped_bytes_in_the_manifest(tiny_artifact: Path, copy_of: Copy) -> None:
    path = copy_of(tiny_artifact)
    data = bytearray(path.read_bytes())
    place = data.index(b'"text-classification"')
    data[place + 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(NotAnArtifactError, match="CRC"):
        read_manifest(path)


def test_code_that_torchscript_cannot_read(tiny_artifact: Path, tmp_path: Path) -> None:
    path = rewrite(tiny_artifact, tmp_path / "code.pt", {"data.pkl": b"garbage"})
    with pytest.raises(NotAnArtifactError, match="TorchScript cannot load"):
        load(path)


def test_a_part_of_absurd_size_is_refused_unread(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_PART_BYTES", 100)
    with pytest.raises(ManifestDamagedError, match="declares"):
        read_manifest(tiny_artifact)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert artifact.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
