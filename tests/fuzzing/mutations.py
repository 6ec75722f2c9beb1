"""What the fuzzer does to a file: bytes, zip fields, records, pickles, code, manifest; for most, digests fit again."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
from typing import Any

from tests.hostile.builder import Forged

from . import pickled, sources

NUMBERS = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 30, 46, 22]
VALUES: list[Any] = [None, True, 0, 1, -1, 7, 300, 2**24, 2**31, 2**63, 10**400, 0.5, 1e308, "", "x", "9" * 5000]
VALUES += ["\x1b[2J", "../../x", [], {}, [[]] * 9, {"a": {}}, "2.8.0", "2.9.0", "logits", "1" * 64, [1] * 1000]
Parts = list[tuple[str, bytes, int]]


def _read(whole: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]


def _write(parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content, compression in parts:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def _flip(data: bytes, dice: random.Random, begin: int = 0) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        if changed:
            changed[dice.randrange(begin, len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _splice(data: bytes, dice: random.Random) -> bytes:
    """Cut a piece out, or put one in: zeros, noise, or another piece of the same."""
    place, length = dice.randrange(len(data) + 1), dice.choice([1, 2, 4, 22, 46, 100, 4096])
    other = dice.randrange(len(data) + 1)
    piece = dice.choice([b"", bytes(length), dice.randbytes(length), data[other : other + length]])
    return data[:place] + piece + data[place + dice.choice([0, length]) :]


def _leaf(value: Any, dice: random.Random) -> Any:
    """The same JSON with one value, somewhere, exchanged, doubled or removed."""
    if isinstance(value, (dict, list)) and value and dice.random() < 0.9:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        key = dice.choice(list(value)) if isinstance(value, dict) else dice.randrange(len(value))
        if dice.random() < 0.1:
            del copy[key]
        elif isinstance(value, list) and dice.random() < 0.1:
            copy.append(value[key])
        else:
            copy[key] = _leaf(value[key], dice)
        return copy
    if isinstance(value, int) and dice.random() < 0.5:
        return value + dice.choice([1, -1, 2, 15, 500, 2**10, 2**16, 2**20, 2**23, 2**40])
    return dice.choice(VALUES)


def mutate(whole: bytes, seed: int, index: int) -> tuple[str, bytes]:
    """The name of what was done, and the bytes. Names in `FORGED` may change the answers."""
    dice = random.Random(seed * 1_000_003 + index)
    kind = dice.choice(KINDS)
    directory = whole.rindex(b"PK\5\6")
    start = struct.unpack_from("<L", whole, directory + 16)[0]
    if kind == "flip":
        return kind, _flip(whole, dice)
    if kind == "flip in the directory":
        return kind, _flip(whole, dice, start)
    if kind == "cut":
        return kind, whole[: dice.randrange(len(whole))]
    if kind == "splice":
        return kind, _splice(whole, dice)
    if kind == "sizes":
        changed = bytearray(whole)
        heads = [found.start() for found in re.finditer(b"PK\1\2|PK\3\4", whole)]
        for place in dice.sample(heads, dice.choice([1, 1, 2])):
            field = dice.randrange(4, 30, 2)
            struct.pack_into("<L", changed, place + field, dice.choice([*NUMBERS, len(whole), dice.getrandbits(32)]))
        return kind, bytes(changed)
    if kind == "end":
        changed = bytearray(whole)
        struct.pack_into("<L", changed, directory + dice.randrange(4, 19), dice.choice(NUMBERS))
        return kind, bytes(changed)
    parts = _read(whole)
    one, two = dice.sample(range(len(parts)), 2)
    name, content, compression = parts[one]
    if kind == "swap":
        parts[one], parts[two] = (name, *parts[two][1:]), (parts[two][0], content, compression)
    elif kind == "double":
        parts.insert(two, (dice.choice([name, name.upper(), name + "/", "./" + name]), content, compression))
    elif kind == "rename":
        parts[one] = (dice.choice([name + "x", "../" + name, "/" + name, "b/x", "a\\b/c", parts[two][0]]), content, 0)
    elif kind == "remove":
        del parts[one]
    elif kind == "bomb":
        parts[one] = (name, bytes(dice.choice([2**16, 2**20, 2**25])), zipfile.ZIP_DEFLATED)
    elif kind == "content":
        parts[one] = (name, _splice(_flip(content, dice), dice), compression)
    elif kind == "manifest":
        value = json.loads(parts[-1][1])
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            value = _leaf(value, dice)
        parts[-1] = (parts[-1][0], json.dumps(value).encode(), 0)
    elif kind == "manifest text":
        deep = b"[" * dice.choice([10, 10**5]) + parts[-1][1]
        parts[-1] = (parts[-1][0], dice.choice([_flip, _splice])(dice.choice([parts[-1][1], deep]), dice), 0)
    else:
        return kind, _forged(whole, kind, dice)
    return kind, _write(parts)


def _forged(whole: bytes, kind: str, dice: random.Random) -> bytes:
    """One record changed by what it is, and the digests made to fit."""
    made = Forged(whole)
    ending = {
        "pickle": (".pkl",),
        "code": (".py",),
        "numbers": ("/",),
        "words": (".py", ".pkl", "byteorder", "version"),
    }
    names = [name for name in made.records if name.endswith(ending.get(kind, "")) and made.records[name]]
    if kind == "numbers":
        names = [name for name in made.records if name.startswith(("constants/", "data/"))]
    if kind == "record":
        made.records[dice.choice(RECORDS)] = dice.choice([b"", b"3\n", b"{}", b"\x80\x02).", bytes(16)])
        return made.bytes()
    name = dice.choice(names)
    content = made.records[name]
    if kind == "pickle":
        content = pickled.mutate(content, dice)
    elif kind == "code":
        content = sources.mutate(content.decode(), dice).encode()
    elif kind == "numbers":
        content = dice.choice([_flip, _splice])(content, dice) if content else bytes(8)
    elif kind == "sealed manifest":
        value = made.sealed_manifest()
        for _ in range(dice.choice([1, 1, 2])):
            value = _leaf(value, dice)
        # Its list of digests stays as it has to be.
        value = value | {"parts": made.sealed_manifest()["parts"]} if isinstance(value, dict) else value
        return made.bytes(json.dumps(value).encode())
    else:
        content = dice.choice([_flip, _splice])(content, dice)
    made.records[name] = content
    return made.bytes()


# Kinds that may change the answers, and those that may change the code.
FORGED = {"words", "pickle", "code", "numbers", "record", "sealed manifest"}
CODE = {"words", "code"}
RECORDS = [
    "model.json",
    "version",
    ".data/version",
    "byteorder",
    "constants/0",
    "constants/999",
    "data/0",
    "data/7",
    "code/x.py",
    "traced_inputs.pkl",
]
KINDS = [
    *("flip", "flip in the directory", "cut", "splice", "sizes", "end", "swap", "double", "rename", "remove", "bomb"),
    *("content", "manifest", "sealed manifest", "manifest text", "words", "numbers", "record"),
    *("pickle", "pickle", "pickle", "pickle", "code", "code", "code", "code"),
]
