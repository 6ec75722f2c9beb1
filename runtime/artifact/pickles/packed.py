"""Check IPEX's packed weights in a pickle: IPEX's packing assumes shapes and types that it does not check itself."""

from __future__ import annotations

import ast

from runtime.artifact.pickles import rules
from runtime.artifact.pickles.types import Type, parse_type
from runtime.artifact.pickles.values import InvalidPickle, List, Tensor, Value

# The maximum of a number of tokens or an image size: far above real models, far below an overflow.
_MOST = 2**20
_DTYPES = ("Float", "BFloat16", "Half")


def _parsed(text: str) -> Type:
    found = parse_type(ast.parse(text, mode="eval").body)
    assert found is not None, text
    return found


_STATES = {name: _parsed(text) for name, text in rules.PACKED.items()}


def check_packed(name: str, state: Value) -> None:
    """Check an object's state, which IPEX would pack without checks.

    Raises:
        InvalidPickle: a value does not fit.
    """
    if not _STATES[name].fits(state):
        raise InvalidPickle(f"weights of {name} that are not {rules.PACKED[name]}")
    weight, bias, *rest = state.items
    linear = len(rest) == 1
    transposed = name.endswith("ConvTransposeOpContext")
    axes = len(weight.size)
    if weight.dtype not in _DTYPES or 0 in weight.size or not (axes == 2 if linear else 3 <= axes <= 5):
        raise InvalidPickle(f"weights of {name} of {weight.dtype} {list(weight.size)}")
    numbers = [rest[0] or 1] if linear else _numbers(rest, axes - 2)
    if not all(0 <= number <= _MOST for number in numbers):
        raise InvalidPickle(f"numbers of {name} out of range")
    groups = 1 if linear else rest[3]
    channels = weight.size[1] * groups if transposed else weight.size[0]
    if isinstance(bias, Tensor) and (bias.dtype != weight.dtype or bias.size != (channels,)):
        raise InvalidPickle(f"a bias of {bias.dtype} {list(bias.size)} for {channels} outputs")
    if groups < 1 or (weight.size[0] if transposed or not linear else channels) % groups:
        raise InvalidPickle(f"{groups} groups of {list(weight.size)} weights")


def _numbers(rest: list[Value], spatial: int) -> list[int]:
    """All numbers of a convolution. Strides and dilations must be above zero, and lists have one entry per axis."""
    lists = [item for item in rest if isinstance(item, List)]
    if any(len(found.items) != spatial for found in lists[:-1]) or len(lists[-1].items) not in (0, spatial + 2):
        raise InvalidPickle(f"a convolution along {spatial} axes with lists of other lengths")
    if 0 in lists[0].items or 0 in lists[-2].items:
        raise InvalidPickle("a convolution with a stride or a dilation of zero")
    return [number for found in lists for number in found.items]
