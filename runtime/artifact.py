"""The `.pt` file: write it, read what lies beside the code, load the code.

In: a traced module with its extra parts; or a path. Out: a file; or a manifest, a part, a module. Refuses
what is no zip archive, was cut short, has no manifest or a newer format. Reading the manifest and the
parts needs no torch. The only user of `torch.jit.save` and `torch.jit.load`.

A file is written in two steps. `save` writes code, weights and every part but the manifest: a draft that
`read_manifest` refuses. `seal` appends the manifest to that same file, once it has been verified; the
bytes that were verified stay as they are.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtime.errors import (
    ArtifactNotFoundError,
    FormatVersionError,
    ManifestDamagedError,
    ManifestMissingError,
    NotAnArtifactError,
)
from runtime.manifest import FORMAT_VERSION, FORMAT_VERSION_FILE, MANIFEST_FILE, Manifest, from_json, to_json

if TYPE_CHECKING:
    import torch

PathLike = str | os.PathLike[str]

# Largest size, in bytes, that a part may declare. A manifest is some kilobytes, the largest tokenizers
# some tens of megabytes; beyond this the file is hostile or damaged.
MAX_PART_BYTES = 256 * 2**20

# As PyTorch's own writer: data starts at multiples of 64 bytes, behind an extra field named "FB".
_ALIGNMENT = 64
_PADDING_FIELD = int.from_bytes(b"FB", "little")

_COPY_AGAIN = "copy the file again, or export the model again"
# What zipfile raises on damaged archives, beside its own error: bad local headers, unknown methods,
# encryption flags, cut streams.
_ZIP_ERRORS = (zipfile.BadZipFile, struct.error, zlib.error, ValueError, NotImplementedError, RuntimeError, EOFError)


def save(module: torch.jit.ScriptModule, path: PathLike, parts: Mapping[str, bytes]) -> None:
    """Write a draft: the module, `format_version` and `parts` (name → content).

    The archive is built in memory and written by Python: when `torch.jit.save` writes to a path and
    the disk is full, PyTorch's writer throws from a destructor and the process is aborted.

    Raises:
        OSError: if the file cannot be written; what was written so far stays for the caller to delete.
    """
    import torch

    buffer = io.BytesIO()
    torch.jit.save(module, buffer, _extra_files={FORMAT_VERSION_FILE: str(FORMAT_VERSION), **parts})
    with zipfile.ZipFile(buffer) as built, open(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for record in built.infolist():
            # Debug records hold the source lines, and so the paths, of the machine that exported.
            if not record.filename.endswith(".debug_pkl"):
                _add(archive, record.filename, built.read(record), record.compress_type)


def seal(path: PathLike, manifest: Manifest) -> None:
    """Append the manifest to a draft, after its last record, and flush the file to the disk.

    Raises:
        OSError: if the file cannot be written.
    """
    with zipfile.ZipFile(path, "a") as archive:
        _add(archive, f"{_prefix(archive)}/extra/{MANIFEST_FILE}", to_json(manifest).encode(), zipfile.ZIP_STORED)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(path: PathLike) -> Manifest:
    """What the artifact says of itself. Takes milliseconds and needs no torch.

    Raises:
        ArtifactNotFoundError, NotAnArtifactError: no such file; no zip archive, or cut short.
        ManifestMissingError: a zip archive that this exporter did not finish.
        FormatVersionError: a newer format.
        ManifestDamagedError: the manifest cannot be understood.
    """
    with _open(path) as archive:
        version = _part(archive, path, FORMAT_VERSION_FILE)
        if version is not None:
            _check_format_version(path, version)
        text = _part(archive, path, MANIFEST_FILE)
    if version is None or text is None:
        missing = FORMAT_VERSION_FILE if version is None else MANIFEST_FILE
        raise ManifestMissingError(
            f"{os.fspath(path)} holds no {missing}",
            "a file that export-model wrote",
            "export the model with export-model",
        )
    return from_json(text, os.fspath(path))


def read_part(path: PathLike, name: str) -> bytes | None:
    """The extra file `name`, or None if the artifact has none of that name.

    Raises:
        ArtifactNotFoundError, NotAnArtifactError, ManifestDamagedError: as for `read_manifest`.
    """
    with _open(path) as archive:
        return _part(archive, path, name)


def load(path: PathLike) -> torch.jit.ScriptModule:
    """The module, in evaluation mode, on the CPU. Operators it needs must be registered before.

    Raises:
        NotAnArtifactError: if TorchScript cannot read it.
    """
    import torch

    try:
        # Frozen in evaluation mode by the exporter: there is no training flag to clear.
        module: torch.jit.ScriptModule = torch.jit.load(os.fspath(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise NotAnArtifactError(f"TorchScript cannot load {os.fspath(path)}: {reason}", "", _COPY_AGAIN) from error
    return module


def _add(archive: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    """Write one record, its data aligned as PyTorch aligns it, so that a reader may map the file."""
    # The earliest date a zip can hold: the same export gives the same bytes.
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = compression
    assert archive.fp is not None
    # A local header takes 30 bytes, the name, and extra fields of 4 bytes and their content each.
    padding = -(archive.fp.tell() + 30 + len(name.encode()) + 4) % _ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
    archive.writestr(info, content)


@contextmanager
def _open(path: PathLike) -> Iterator[zipfile.ZipFile]:
    name = os.fspath(path)
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(f"there is no file {name}", "", "check the path") from error
    except OSError as error:
        raise ArtifactNotFoundError(
            f"cannot open {name}: {error.strerror or error}", "a file that can be read"
        ) from error
    except _ZIP_ERRORS as error:
        raise NotAnArtifactError(
            f"{name} is not a zip archive, or was cut short ({error})", "a TorchScript file", _COPY_AGAIN
        ) from error
    with archive:
        yield archive


def _prefix(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    return names[0].split("/", 1)[0] if names else ""


def _part(archive: zipfile.ZipFile, path: PathLike, name: str) -> bytes | None:
    member = f"{_prefix(archive)}/extra/{name}"
    try:
        info = archive.getinfo(member)
    except KeyError:
        return None
    if info.file_size > MAX_PART_BYTES:
        raise ManifestDamagedError(
            f"{os.fspath(path)}: {name} declares {info.file_size} bytes", f"at most {MAX_PART_BYTES}", _COPY_AGAIN
        )
    try:
        return archive.read(info)
    except (*_ZIP_ERRORS, OSError) as error:
        raise NotAnArtifactError(f"{os.fspath(path)}: {name} cannot be read ({error})", "", _COPY_AGAIN) from error


def _check_format_version(path: PathLike, text: bytes) -> None:
    if not text.isdigit() or len(text) > 9:
        raise ManifestDamagedError(
            f"{os.fspath(path)}: {FORMAT_VERSION_FILE} holds {text[:20]!r}", "a whole number", _COPY_AGAIN
        )
    if int(text) > FORMAT_VERSION:
        raise FormatVersionError(
            f"{os.fspath(path)} has format version {int(text)}",
            f"at most {FORMAT_VERSION}, which this runtime reads",
            "a newer exporter wrote it: update this package, or export again with the version installed here",
        )


def sha256(path: PathLike) -> str:
    """The hexadecimal SHA-256 of the whole file."""
    import hashlib

    digest: Any = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return str(digest.hexdigest())
