"""Signatures prove who exported a file, and that it did not change since."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from exporter import ExportRequest, export
from runtime import load
from runtime.errors import DigestError, ExtraMissingError, KeyFileError, SignatureError
from tests.conftest import BIN, run
from tests.test_artifact import rewrite

Folder = Callable[..., Path]


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key in PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, info))
    return private, public


@pytest.fixture(scope="module")
def signed(tiny_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed artifact and its signer's public key."""
    folder = tmp_path_factory.mktemp("signed")
    private, public = make_keys(folder, "owner")
    export(ExportRequest(str(tiny_folder()), folder / "m.pt", backend="plain", verify="off", sign=private))
    return folder / "m.pt", public


def test_the_owners_key_opens_it(signed: tuple[Path, Path]) -> None:
    path, public = signed
    load(path, verify_key=public)
    load(path)
    done = run([BIN / "run-model", "inspect", path, "--verify-key", public])
    assert done.returncode == 0 and "parts as sealed" in done.stdout


def test_another_key_does_not(signed: tuple[Path, Path], tmp_path: Path) -> None:
    _, other = make_keys(tmp_path, "other")
    with pytest.raises(SignatureError, match="does not fit"):
        load(signed[0], verify_key=other)
    done = run([BIN / "run-model", "check", signed[0], "--verify-key", other])
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


def test_an_unsigned_file_is_refused_where_a_key_is_given(tiny_artifact: Path, signed: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        load(tiny_artifact, verify_key=signed[1])


def test_a_changed_part_is_seen_even_with_a_new_manifest(signed: tuple[Path, Path], tmp_path: Path) -> None:
    path, public = signed
    forged = rewrite(path, tmp_path / "forged.pt", {"format_version": b"0002"})
    with pytest.raises((SignatureError, DigestError)):
        load(forged, verify_key=public)


@pytest.mark.parametrize("content", [None, b"", b"garbage", "rsa"])
def test_keys_that_are_none(
    tiny_folder: Folder, signed: tuple[Path, Path], tmp_path: Path, content: bytes | str | None
) -> None:
    key = tmp_path / "key.pem"
    if content == "rsa":
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        key.write_bytes(made.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    elif isinstance(content, bytes):
        key.write_bytes(content)
    with pytest.raises(KeyFileError):
        load(signed[0], verify_key=key)
    with pytest.raises(KeyFileError):
        export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain", verify="off", sign=key))
    assert not (tmp_path / "m.pt").exists()


def test_without_the_package_the_error_says_what_to_install(
    signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ExtraMissingError, match="pip install cryptography"):
        load(signed[0], verify_key=signed[1])
