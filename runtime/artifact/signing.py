"""Sign an artifact and check its signature, with Ed25519.

The signature is made of the bytes of `manifest.json`. The manifest holds the digest of every other part, so it covers
the whole file. The only module that imports cryptography (extra `sign`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runtime.errors import ExtraMissingError, KeyFileError, SignatureError

PathLike = str | os.PathLike[str]


def sign(manifest: bytes, key: PathLike) -> bytes:
    """The signature of a manifest.

    Args:
        manifest: the content of `manifest.json`.
        key: a file with an unencrypted Ed25519 private key in PEM (`openssl genpkey -algorithm ed25519`).

    Raises:
        KeyFileError: the file cannot be read or holds no such key.
        ExtraMissingError: the package cryptography is not installed.
    """
    return bytes(_private_key(key).sign(manifest))


def check_private_key(key: PathLike) -> None:
    """Raise what `sign` would raise, before there is anything to sign."""
    _private_key(key)


def verify(manifest: bytes, signature: bytes | None, key: PathLike, origin: str) -> None:
    """Check a signature.

    Args:
        manifest: the content of `manifest.json`.
        signature: the content of the part `signature`, or None if the artifact has none.
        key: a file with the signer's Ed25519 public key in PEM (`openssl pkey -pubout`).
        origin: the artifact's name, for errors.

    Raises:
        SignatureError: there is none, or another key made it, or the manifest changed.
        KeyFileError, ExtraMissingError: as for `sign`.
    """
    serialization, ed25519, invalid = _cryptography()
    content = _read(key)
    try:
        public = serialization.load_pem_public_key(content)
    except ValueError as error:
        raise KeyFileError(f"{os.fspath(key)} holds no public key ({error})", "an Ed25519 public key in PEM") from error
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise KeyFileError(f"{os.fspath(key)} holds a key of another kind", "an Ed25519 public key in PEM")
    remedy = "do not use the file; get it again from whoever signed it"
    if signature is None:
        raise SignatureError(f"{origin} is not signed", f"a signature by the owner of {os.fspath(key)}", remedy)
    try:
        public.verify(signature, manifest)
    except invalid as error:
        raise SignatureError(
            f"the signature of {origin} does not fit {os.fspath(key)}",
            "an unchanged file, signed with that key",
            remedy,
        ) from error


def _private_key(key: PathLike) -> Any:
    serialization, ed25519, _ = _cryptography()
    content, name = _read(key), os.fspath(key)
    try:
        private = serialization.load_pem_private_key(content, password=None)
    # ValueError: not PEM, or damaged; TypeError: encrypted, which needs a password.
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{name} holds no private key ({error})", "an unencrypted Ed25519 key in PEM") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"{name} holds a key of another kind", "an Ed25519 private key in PEM")
    return private


def _read(path: PathLike) -> bytes:
    if not isinstance(path, (str, os.PathLike)):
        raise KeyFileError(f"the key is given as {type(path).__name__}", "the path of a file with a key in PEM")
    try:
        return Path(path).read_bytes()
    # ValueError: not a valid file name.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise KeyFileError(f"cannot read {os.fspath(path)}: {reason}", "a key in PEM") from error


def _cryptography() -> tuple[Any, Any, type[Exception]]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ExtraMissingError(
            "signing and checking signatures need the package cryptography, which is not installed",
            "",
            "pip install cryptography",
        ) from None
    return serialization, ed25519, InvalidSignature
