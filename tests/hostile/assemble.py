"""Pickles, opcode by opcode, as TorchScript's pickler writes them and as it never would.

Each function gives the bytes that put one value on the unpickler's stack; `pickle` makes a record of them. Nothing is
put into the memo, so that pieces can be combined freely.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT = b")", b"]", b"}"
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"


def pickle(value: bytes) -> bytes:
    """A whole record, protocol 2."""
    return b"\x80\x02" + value + b"."


def number(value: int) -> bytes:
    """The shortest opcode that holds the number; 64 bits at most."""
    if 0 <= value < 2**8:
        return b"K" + bytes([value])
    if 0 <= value < 2**16:
        return b"M" + struct.pack("<H", value)
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def name(module: str, attribute: str) -> bytes:
    """A GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def many(*values: bytes) -> bytes:
    """A tuple of any length."""
    return b"(" + b"".join(values) + b"t"


def numbers(values: Sequence[int]) -> bytes:
    return many(*map(number, values))


def items(*values: bytes) -> bytes:
    """A list."""
    return EMPTY_LIST + b"(" + b"".join(values) + b"e"


def pairs(values: dict[str, bytes]) -> bytes:
    """A dict with texts for keys."""
    return EMPTY_DICT + b"(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    """A REDUCE."""
    return name(module, attribute) + many(*arguments) + b"R"


def typed(kind: str, *values: bytes) -> bytes:
    """A list that carries its type: `intlist`, `tensorlist`, `doublelist`, `boollist`."""
    return call("torch.jit._pickle", f"build_{kind}", items(*values))


def instance(module: str, attribute: str, state: bytes) -> bytes:
    """An object of a class, with what BUILD gives it."""
    return name(module, attribute) + EMPTY_TUPLE + b"\x81" + state + b"b"


def storage(dtype: str = "Float", key: str = "0", count: int = 4, device: str = "cpu", tag: str = "storage") -> bytes:
    """A persistent id: so many elements in the record of that name."""
    return many(text(tag), name("torch", f"{dtype}Storage"), text(key), text(device), number(count)) + b"Q"


def tensor(
    stored: bytes,
    size: Sequence[int] = (4,),
    stride: Sequence[int] | None = None,
    offset: int = 0,
    grad: bytes = FALSE,
    hooks: bytes | None = None,
) -> bytes:
    """A tensor over a storage; contiguous, unless strides are given."""
    rest = (grad, call("collections", "OrderedDict") if hooks is None else hooks)
    return call("torch._utils", "_rebuild_tensor_v2", stored, number(offset), *_form(size, stride), *rest)


def quantised(
    stored: bytes, parameters: bytes, size: Sequence[int], stride: Sequence[int] | None = None, offset: int = 0
) -> bytes:
    """A quantised tensor; `parameters` is the tuple that begins with the scheme."""
    rest = (parameters, FALSE, call("collections", "OrderedDict"))
    return call("torch._utils", "_rebuild_qtensor", stored, number(offset), *_form(size, stride), *rest)


def per_channel(scales: bytes, zero_points: bytes, axis: int) -> bytes:
    return many(name("torch", "per_channel_affine"), scales, zero_points, number(axis))


def per_tensor(scale: float, zero_point: int) -> bytes:
    return many(name("torch", "per_tensor_affine"), real(scale), number(zero_point))


def contiguous(size: Sequence[int]) -> list[int]:
    """The strides of a tensor without gaps."""
    strides: list[int] = []
    step = 1
    for length in reversed(size):
        strides.insert(0, step)
        step *= length
    return strides


def _form(size: Sequence[int], stride: Sequence[int] | None) -> tuple[bytes, bytes]:
    return numbers(size), numbers(contiguous(size) if stride is None else stride)
