"""Zips that two readers could read differently, and records that no export holds."""

from __future__ import annotations

import struct
from collections.abc import Callable

from .builder import ANSWER, Forged, forge
from .case import Case, Expected, add

UNSAFE, DIGEST = "UnsafeArchiveError", "DigestError"


def _add(name: str, what: str, make: Callable[[bytes], bytes], error: str = "", expected: Expected = "refused") -> None:
    add(Case("archive", name, what, make, expected, error))


def _extra(name: str, content: bytes = b"") -> Callable[[bytes], bytes]:
    return lambda base: forge(base, records={name: content})


def _patched(sign: bytes, number: int, at: int, form: str, value: int) -> Callable[[bytes], bytes]:
    """Change one field of the numbered directory entry, local header or end record."""

    def make(base: bytes) -> bytes:
        changed = bytearray(forge(base))
        places = [i for i in range(len(changed)) if changed[i : i + 4] == sign]
        struct.pack_into(form, changed, places[number] + at, value)
        return bytes(changed)

    return make


def _renamed(old: str, new: str) -> Callable[[bytes], bytes]:
    def make(base: bytes) -> bytes:
        made = Forged(base)
        made.records = {new if name == old else name: content for name, content in made.records.items()}
        return made.bytes()

    return make


def _dropped(name: str) -> Callable[[bytes], bytes]:
    def make(base: bytes) -> bytes:
        made = Forged(base)
        made.records = {n: content for n, content in made.records.items() if n != name}
        return made.bytes()

    return make


def _deflated(name: str, content: bytes) -> Callable[[bytes], bytes]:
    def make(base: bytes) -> bytes:
        made = Forged(base)
        made.records[name] = content
        made.deflated.add(name)
        return made.bytes()

    return make


def _other_digest(base: bytes) -> bytes:
    """One byte of a weight changed after the digests were made."""
    made = Forged(base)
    name = next(name for name in made.records if name.startswith("constants/") and len(made.records[name]) > 64)
    whole = bytearray(made.bytes())
    place = whole.index(made.records[name])
    whole[place] ^= 1
    # The checksum of the zip is made to fit, so that only the digest can tell.
    import zlib

    crc = struct.pack("<L", zlib.crc32(bytes(whole[place : place + len(made.records[name])])))
    old = struct.pack("<L", zlib.crc32(made.records[name]))
    return bytes(whole).replace(old, crc)


_add("resealed", "a copy, put together again", lambda base: Forged(base).bytes(), expected="right")
_add("forged", "code of one's own that answers zeros", lambda base: forge(base, ANSWER), expected="right")
_add("part_changed", "a weight that is not the one that was sealed", _other_digest, DIGEST)
_add("model_json", "a record that makes PyTorch read an older format", _extra("model.json", b"{}"))
_add("legacy_tensors", "a record of the older format", _extra("tensors/0", b"1234"))
_add("bytecode", "code for the mobile interpreter", _extra("bytecode.pkl", b"\x80\x02)."))
_add("library", "a shared library", _extra("code/evil.so", b"\x7fELF"))
_add("debug", "a debug pickle", _extra("code/__torch__.py.debug_pkl", b"\x80\x02)."))
_add("attributes", "a pickle of the older format", _extra("attributes.pkl", b"\x80\x02)."))
_add("no_data", "no data.pkl", _dropped("data.pkl"))
_add("no_constants", "no constants.pkl", _dropped("constants.pkl"))
_add(
    "no_code", "an object whose code is not there", lambda base: forge(base, data=b"\x80\x02c__torch__.x\nA\n)\x81}b.")
)
_add("upper_case", "data.pkl in capitals", _renamed("data.pkl", "DATA.PKL"))
_add("bomb", "code that becomes far more than the file", _deflated("code/__torch__/bomb.py", b"#" * 2**25), UNSAFE)
_add("bomb_data", "a compressed record of numbers", _deflated("constants/bomb", bytes(2**20)), UNSAFE)
_add("local_size", "a size that differs in the header", _patched(b"PK\3\4", 0, 22, "<L", 7), UNSAFE)
_add("local_name", "a name of another length in the header", _patched(b"PK\3\4", 0, 26, "<H", 3), UNSAFE)
_add("local_method", "a method that differs in the header", _patched(b"PK\3\4", 0, 8, "<H", 8), UNSAFE)
_add("directory_size", "a size beyond the file", _patched(b"PK\1\2", 0, 24, "<L", 2**31), UNSAFE)
_add("directory_offset", "a record that begins elsewhere", _patched(b"PK\1\2", 1, 42, "<L", 5), UNSAFE)
_add("directory_crc", "a checksum that does not fit", _patched(b"PK\1\2", 0, 16, "<L", 5), UNSAFE)
_add("encrypted", "an encrypted record", _patched(b"PK\1\2", 0, 8, "<H", 1), UNSAFE)
_add("link", "a record that is a link", _patched(b"PK\1\2", 0, 38, "<L", 0o120777 << 16), UNSAFE)
_add("end_count", "another number of records", _patched(b"PK\5\6", -1, 10, "<H", 1), UNSAFE)
_add("end_comment", "a comment", lambda base: forge(base)[:-2] + b"\x02\x00hi", "NotAnArtifactError")
_add("cut", "a file that was cut short", lambda base: forge(base)[:-100], "NotAnArtifactError")
_add("in_front", "bytes in front of the zip", lambda base: b"#!/bin/sh\n" + forge(base))
_add("behind", "bytes behind the zip", lambda base: forge(base) + b"x")
_add("empty", "an empty file", lambda _: b"", "NotAnArtifactError")
for version in (b"", b"0", b"99", b"x", b"-3", b"9" * 400):
    _add(f"version {version[:9].decode()!r}", "a version that PyTorch does not read", _extra("version", version))
_add("byteorder", "numbers in the other order of bytes", _extra("byteorder", b"big"))
_add("byteorder_unknown", "an order of bytes that there is not", _extra("byteorder", b"middle"))
