"""The `.pt` file: write it, read what lies beside the code, load the code.

The only module that writes and reads TorchScript files. Refused is what is no zip archive, was cut short, is built as
no exporter builds it (`runtime.artifact.zip_reader`), has no manifest or another format, or parts that are not those
sealed. Reading the manifest and the parts needs no torch.

A file is written in two steps. `save` writes code and weights: a draft that `read_manifest` refuses. `seal` appends the
parts and the manifest to that same file, once it has been verified; the bytes that were verified stay as they are.

Readers take a path or an `Archive`. A file may be replaced while it is read: whoever reads several things of it opens
it once (`open_archive`) and passes the archive on, so that all of them are of the same file.
"""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from runtime.artifact.digests import (
    MANIFEST_RECORD,
    SIGNATURE_RECORD,
    check_sha256,
    part_digest,
    sha256,
    verified_sha256,
    verify_parts,
    verifying_parts,
)
from runtime.artifact.opening import PathLike, Source, link_to, open_archive
from runtime.artifact.operator_allowlist import check_code
from runtime.artifact.pickles import check_pickles
from runtime.artifact.signing import sign, verify
from runtime.artifact.zip_reader import Archive
from runtime.artifact.zip_writer import add_record
from runtime.errors import (
    FormatVersionError,
    ManifestDamagedError,
    ManifestMissingError,
    NotAnArtifactError,
)
from runtime.format.codec import from_json, to_json
from runtime.format.manifest import (
    FORMAT_VERSION,
    FORMAT_VERSION_FILE,
    MANIFEST_FILE,
    OLDEST_FORMAT_VERSION,
    SIGNATURE_FILE,
    Manifest,
)

if TYPE_CHECKING:
    from runtime.host.torchscript import ScriptModule

# What a user of the file needs stands here under one name, whichever room it lies in.
__all__ = [
    "PathLike",
    "Source",
    "check_sha256",
    "check_signature",
    "load",
    "open_archive",
    "read_manifest",
    "read_part",
    "save",
    "seal",
    "sha256",
    "verified_sha256",
    "verify_parts",
    "verifying_parts",
]

# Largest size, in bytes, that a part may declare. The largest tokenizers are some tens of megabytes; beyond this the
# file is hostile or damaged. A manifest is some kilobytes, and its JSON takes many times its size in memory.
MAX_PART_BYTES = 256 * 2**20
MAX_MANIFEST_BYTES = 4 * 2**20

_COPY_AGAIN = "copy the file again, or export the model again"


def save(module: ScriptModule, path: PathLike) -> None:
    """Write a draft: the module and `format_version`.

    The archive is built in memory and written by Python: when `torch.jit.save` writes to a path and
    the disk is full, PyTorch's writer throws from a destructor and the process is aborted.

    Raises:
        OSError: if the file cannot be written; what was written so far stays for the caller to delete.
    """
    from runtime.host import torchscript

    buffer = io.BytesIO()
    torchscript.save(module, buffer, {FORMAT_VERSION_FILE: str(FORMAT_VERSION)})
    with zipfile.ZipFile(buffer) as built, open(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for record in built.infolist():
            # Debug records hold the source lines, and so the paths, of the machine that exported.
            if not record.filename.endswith(".debug_pkl"):
                add_record(archive, record.filename, built.read(record), record.compress_type)


def seal(path: PathLike, manifest: Manifest, parts: Mapping[str, bytes], sign_key: PathLike | None = None) -> Manifest:
    """Append the parts (name → content) and the manifest to a draft, and flush the file to the disk.

    `sign_key` is a file with the private key that signs the manifest (`runtime.artifact.signing`); None leaves it
    unsigned.

    Returns:
        The manifest as it was written: with the digest of every record of the draft.

    Raises:
        OSError: if the file cannot be written.
    """
    with open_archive(path) as draft:
        top = draft.top
    with zipfile.ZipFile(path, "a") as archive:
        for part, content in parts.items():
            add_record(archive, f"{top}/extra/{part}", content, zipfile.ZIP_STORED)
    with open_archive(path) as draft:
        sealed = dataclasses.replace(manifest, parts=tuple(part_digest(draft, name) for name in draft.records))
    text = to_json(sealed).encode()
    with zipfile.ZipFile(path, "a") as archive:
        add_record(archive, f"{top}/{MANIFEST_RECORD}", text, zipfile.ZIP_STORED)
        if sign_key is not None:
            add_record(archive, f"{top}/{SIGNATURE_RECORD}", sign(text, sign_key), zipfile.ZIP_STORED)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return sealed


def read_manifest(source: Source | Archive) -> Manifest:
    """What the artifact says of itself. Takes milliseconds and needs no torch.

    Args:
        source: a path, the content as bytes, or a file object opened for reading in binary
            (`runtime.artifact.opening`).

    Raises:
        ArtifactNotFoundError, NotAnArtifactError, UnsafeArchiveError: as for `open_archive`.
        ManifestMissingError: a zip archive that this exporter did not finish.
        FormatVersionError: a format that is newer, or older, than those read here.
        ManifestDamagedError: the manifest cannot be understood.
    """
    with open_archive(source) as archive:
        version = _part(archive, FORMAT_VERSION_FILE)
        if version is not None:
            _check_format_version(archive.origin, version)
        text = _part(archive, MANIFEST_FILE)
    if version is None or text is None:
        missing = FORMAT_VERSION_FILE if version is None else MANIFEST_FILE
        raise ManifestMissingError(
            f"{archive.origin} holds no {missing}",
            "a file that export-model wrote",
            "export the model with export-model",
        )
    return from_json(text, archive.origin)


def read_part(source: Source | Archive, name: str) -> bytes | None:
    """The extra file `name`, or None if the artifact has none of that name.

    Raises:
        ArtifactNotFoundError, NotAnArtifactError, UnsafeArchiveError, ManifestDamagedError: as for `read_manifest`.
    """
    with open_archive(source) as archive:
        return _part(archive, name)


def check_signature(source: Source | Archive, key: PathLike) -> None:
    """Check that the owner of a public key signed the artifact.

    Raises:
        SignatureError, KeyFileError, ExtraMissingError: see `runtime.artifact.signing.verify`.
    """
    with open_archive(source) as archive:
        verify(_part(archive, MANIFEST_FILE) or b"", _part(archive, SIGNATURE_FILE), key, archive.origin)


def load(source: Source | Archive, allow_operators: Collection[str] = ()) -> ScriptModule:
    """The module, in evaluation mode, on the CPU. Operators it needs must be registered before.

    Args:
        source: the file.
        allow_operators: names of operators that its code may call beside those of the list, as `aten::name`.

    Raises:
        OperatorNotAllowedError: its code could reach outside the tensors it is given.
        UnsafeArchiveError: its pickles say of records and classes what is not so.
        NotAnArtifactError: if TorchScript cannot read it.
    """
    from runtime.artifact.argument_check import check_arguments
    from runtime.host import torchscript

    with open_archive(source) as archive:
        check_pickles(archive, check_code(archive, allow_operators))
        link = link_to(archive)
        try:
            # Frozen in evaluation mode by the exporter: there is no training flag to clear.
            module = torchscript.load(link or io.BytesIO(archive.whole()))
        except torchscript.FAILURES as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = lines[0][:200].replace(link or archive.origin, archive.origin)
            raise NotAnArtifactError(f"TorchScript cannot load {archive.origin}: {reason}", "", _COPY_AGAIN) from error
        check_arguments(module, archive.origin, allow_operators)
    return module


def _part(archive: Archive, name: str) -> bytes | None:
    record = archive.records.get(f"extra/{name}")
    if record is None:
        return None
    limit = min(MAX_PART_BYTES, MAX_MANIFEST_BYTES) if name == MANIFEST_FILE else MAX_PART_BYTES
    if record.size > limit:
        raise ManifestDamagedError(
            f"{archive.origin}: {name} declares {record.size} bytes", f"at most {limit}", _COPY_AGAIN
        )
    return archive.read(record.name, limit)


def _check_format_version(origin: str, text: bytes) -> None:
    if not text.isdigit() or len(text) > 9:
        raise ManifestDamagedError(
            f"{origin}: {FORMAT_VERSION_FILE} holds {text[:20]!r}", "a whole number", _COPY_AGAIN
        )
    if int(text) > FORMAT_VERSION:
        raise FormatVersionError(
            f"{origin} has format version {int(text)}",
            f"at most {FORMAT_VERSION}, which this runtime reads",
            "a newer exporter wrote it: update this package, or export again with the version installed here",
        )
    if int(text) < OLDEST_FORMAT_VERSION:
        raise FormatVersionError(
            f"{origin} has format version {int(text)}",
            f"at least {OLDEST_FORMAT_VERSION}, the oldest that this runtime reads",
            "an older exporter wrote it: export the model again",
        )
