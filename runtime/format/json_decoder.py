"""Turn parsed JSON into frozen dataclasses.

A field's type may be str, `FreeText`, int, float, bool, a literal, a tuple, a dict with string keys, an optional or
another dataclass. A missing field without a default, a wrong type or an unlisted literal is refused, and the error
names the place (`inputs[0].dtype`). Unknown fields are ignored: a later writer of the same format version may add some.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
import typing
from typing import Any, TypeVar

from runtime.format.manifest import FreeText
from runtime.printing import shown

T = TypeVar("T")

# Control characters, which would steer the terminal that shows them, and surrogates, which no valid text contains.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# What free text may not hold either.
_SURROGATE = re.compile("[\ud800-\udfff]")


class DecodeError(ValueError):
    """The value does not fit the type. The message names the place, what was found and expected."""


def decode(cls: type[T], value: Any, place: str = "") -> T:
    """Build `cls` from `value`; `place` is the path that error messages begin with.

    Raises:
        DecodeError: where `value` does not fit.
    """
    return typing.cast(T, _decode(cls, value, place))


def _decode(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, place)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _decode(inner, value, place)
    if origin is typing.Literal:
        if value not in arguments:
            raise _mismatch(place, value, "one of " + ", ".join(map(repr, arguments)))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(place, value, "a list")
        return tuple(_decode(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(place, value, "an object")
        return {key: _decode(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    return _decode_scalar(kind, value, place)


def _decode_scalar(kind: Any, value: Any, place: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max or not math.isfinite(value):
            raise _mismatch(place, value, "a finite number")
        return float(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _mismatch(place, value, "an integer of 64 bits")
    if kind == FreeText:
        if not isinstance(value, str) or _SURROGATE.search(value):
            raise _mismatch(place, value, "a text")
        return value
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        raise _mismatch(place, value, "text without control characters")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _mismatch(place, value, f"a value of type {kind.__name__}")
    return value


def _decode_dataclass(cls: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(place, value, "an object")
    hints = typing.get_type_hints(cls, include_extras=True)
    arguments = {}
    for field in dataclasses.fields(cls):
        inner = f"{place}.{field.name}" if place else field.name
        if field.name not in value:
            if field.default is not dataclasses.MISSING:
                continue
            raise DecodeError(f"no field {inner}")
        arguments[field.name] = _decode(hints[field.name], value[field.name], inner)
    return cls(**arguments)


def _mismatch(place: str, value: Any, expected: str) -> DecodeError:
    return DecodeError(f"{place or 'the top level'} is {shown(value)}, not {expected}")
