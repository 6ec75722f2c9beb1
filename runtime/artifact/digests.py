"""SHA-256 digests of each part, compared with the manifest, and of the whole file. Needs no torch."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from runtime.artifact.opening import PathLike, Source, open_archive, open_file
from runtime.artifact.zip_reader import Archive
from runtime.errors import DigestError
from runtime.format.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, PartDigest
from runtime.printing import shown

# The manifest holds the digests of all other records except the signature, which is made of the manifest.
MANIFEST_RECORD = f"extra/{MANIFEST_FILE}"
SIGNATURE_RECORD = f"extra/{SIGNATURE_FILE}"
# Hashing releases the interpreter lock, so threads help; more than these would only wait for memory.
_THREADS = 4
# The records of tensors' numbers; `PartDigest.name` says how records are named.
_NUMBERS = re.compile(r"(?:data|constants)/[^/]+")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_COPY_AGAIN = "copy the file again, or export the model again"


def verify_parts(source: Source | Archive, manifest: Manifest) -> None:
    """Compare every record except the manifest with its digest in the manifest.

    Raises:
        DigestError: the first part that differs, is missing, or is not listed.
        ArtifactNotFoundError, NotAnArtifactError, UnsafeArchiveError: as for `open_archive`.
    """
    with open_archive(source) as archive, verifying_parts(archive, manifest):
        pass


@contextmanager
def verifying_parts(archive: Archive, manifest: Manifest) -> Iterator[None]:
    """The same as a context: tensors' numbers are hashed while its body runs, everything else before.

    Hashing a large file takes as long as reading it. Code, pickles and sizes are verified when the body begins. Wrong
    numbers in a tensor do no harm before they are used, which is after the body.

    Raises:
        DigestError: as for `verify_parts`; it takes precedence over errors of the body.
        NotAnArtifactError, UnsafeArchiveError: a record cannot be read.
    """
    listed = [part.name for part in manifest.parts]
    found = [name for name in archive.records if name not in (MANIFEST_RECORD, SIGNATURE_RECORD)]
    for wrong, text in (
        ([name for name in listed if name not in archive.records], "lacks"),
        ([name for name in found if name not in set(listed)], "holds, beside its sealed parts,"),
    ):
        if wrong:
            raise DigestError(f"{archive.origin} {text} {wrong[0]}", "the parts its manifest lists", _COPY_AGAIN)
    if listed != found:
        raise DigestError(f"{archive.origin}: the parts are in another order", "the manifest's", _COPY_AGAIN)
    # Sizes first, so that a record of a wrong size is never read.
    _refuse_others(archive, (part.name for part in manifest.parts if archive.records[part.name].size != part.size))
    numbers = [part for part in manifest.parts if _NUMBERS.fullmatch(part.name)]
    rest = [part for part in manifest.parts if not _NUMBERS.fullmatch(part.name)]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        hashing = pool.map(functools.partial(part_digest, archive), [part.name for part in numbers])
        _refuse_others(archive, (part.name for part in rest if part_digest(archive, part.name) != part))
        try:
            yield
        finally:
            _refuse_others(archive, (part.name for part, found in zip(numbers, hashing, strict=True) if found != part))


def _refuse_others(archive: Archive, wrong: Iterator[str]) -> None:
    for name in wrong:
        raise DigestError(f"{archive.origin}: {name} is not the part that was sealed", "", _COPY_AGAIN)


def verified_sha256(archive: Archive, manifest: Manifest) -> str:
    """The SHA-256 of the whole file, once all of its parts are those that were sealed.

    Raises:
        DigestError: as for `verify_parts`.
    """
    verify_parts(archive, manifest)
    return _file_sha256(archive.file)


def check_sha256(archive: Archive, expected: str) -> None:
    """Compare the digest of the whole file.

    Raises:
        DigestError: it differs, or `expected` is not a digest.
    """
    if not isinstance(expected, str) or not _SHA256.fullmatch(expected.strip()):
        raise DigestError(f"sha256 is {shown(expected)}", "64 hexadecimal digits", "give the digest of the whole file")
    found = _file_sha256(archive.file)
    if found != expected.strip().lower():
        raise DigestError(f"{archive.origin} has sha256 {found}", expected, "get the file that this digest belongs to")


def part_digest(archive: Archive, name: str) -> PartDigest:
    """The digest of one record, read a megabyte at a time; the weaker CRC is not computed."""
    digest = hashlib.sha256()
    for block in archive.blocks(name, checksum=False):
        digest.update(block)
    return PartDigest(name, archive.records[name].size, digest.hexdigest())


def sha256(path: PathLike) -> str:
    """The hexadecimal SHA-256 of the whole file."""
    with open_file(path) as file:
        return _file_sha256(file)


def _file_sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
