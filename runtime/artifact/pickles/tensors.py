"""Check tensors in a pickle against the records that hold their numbers.

Refused is whatever would make PyTorch read outside the record, or read its bytes as numbers of another type.
"""

from __future__ import annotations

import math

from runtime.artifact.pickles import rules
from runtime.artifact.pickles.types import kind_of
from runtime.artifact.pickles.values import Hooks, InvalidPickle, Name, Storage, Tensor, Tuple, Value
from runtime.artifact.zip_reader import Archive


class Records:
    """The records of one pickle, `constants/…` or `data/…`, and which of them the pickle has named."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._left = rules.MAX_REPEATED * archive.bytes
        self._dtypes: dict[str, str] = {}

    def storage(self, identity: Value) -> Storage:
        """The storage of a persistent id: ("storage", type of numbers, record, device, count)."""
        items = identity.items if isinstance(identity, Tuple) else ()
        kinds = [kind_of(item) for item in items]
        if kinds != ["str", "", "str", "str", "int"] or items[0] != "storage" or not isinstance(items[1], Name):
            raise InvalidPickle("a persistent id that is no storage")
        _, name, key, device, count = items
        dtype = name.text.removeprefix("torch ").removesuffix("Storage")
        if name.text != f"torch {dtype}Storage" or dtype not in rules.DTYPES:
            raise InvalidPickle(f"a storage of {name.text[:80]}")
        if device != rules.DEVICE:
            raise InvalidPickle(f"numbers on the device {device[:80]!r}")
        record = f"{self._folder}/{key}"
        if not rules.KEY.fullmatch(key) or record not in self._archive.records:
            raise InvalidPickle(f"numbers in a record {record[:80]!r} that is not there")
        size = self._archive.records[record].size
        if count < 0 or count * rules.DTYPES[dtype] != size:
            raise InvalidPickle(f"{count} numbers of {dtype} in {record}, which has {size} bytes")
        if self._dtypes.setdefault(key, dtype) != dtype:
            raise InvalidPickle(f"{record} as {dtype} and as {self._dtypes[key]}")
        self._left -= size
        if self._left < 0:
            raise InvalidPickle("the same records again and again")
        return Storage(dtype, count)

    def check_contents(self) -> None:
        """Check that every record was named, and that booleans are 0 or 1, since kernels count and index with them."""
        for key, dtype in self._dtypes.items():
            record = f"{self._folder}/{key}"
            if dtype == "Bool" and any(block.translate(None, b"\0\1") for block in self._archive.blocks(record)):
                raise InvalidPickle(f"truth values other than 0 and 1 in {record}")
        unnamed = [
            record
            for record in self._archive.records
            if record.startswith(f"{self._folder}/") and record[len(self._folder) + 1 :] not in self._dtypes
        ]
        if unnamed:
            raise InvalidPickle(f"no tensor for the record {unnamed[0]}")


def rebuild(arguments: Value) -> Tensor:
    """Check a plain tensor, given by storage, offset, sizes, strides, whether it needs a gradient, and hooks."""
    stored, offset, size, stride, grad, hooks = _fields(arguments, 6)
    if not isinstance(stored, Storage) or stored.dtype in rules.QUANTISED:
        raise InvalidPickle("a tensor without a storage, or of quantised numbers")
    if grad is True and stored.dtype not in rules.FLOATING:
        raise InvalidPickle(f"a gradient for numbers of {stored.dtype}")
    return _tensor(stored, offset, size, stride, grad, hooks)


def rebuild_quantised(arguments: Value) -> Tensor:
    """Check a quantised tensor, which has scheme, scales and zero points before the last two fields."""
    stored, offset, size, stride, scheme, grad, hooks = _fields(arguments, 7)
    if not isinstance(stored, Storage) or stored.dtype not in rules.QUANTISED or grad is not False:
        raise InvalidPickle("a quantised tensor without a storage of quantised numbers, or with a gradient")
    tensor = _tensor(stored, offset, size, stride, grad, hooks)
    fields = scheme.items if isinstance(scheme, Tuple) else ()
    if not fields or not isinstance(fields[0], Name):
        raise InvalidPickle("a quantised tensor without a scheme")
    kinds = [kind_of(item) for item in fields[1:]]
    if fields[0].text == rules.PER_TENSOR and kinds == ["float", "int"]:
        return tensor
    if fields[0].text != rules.PER_CHANNEL or kinds != ["Tensor", "Tensor", "int"]:
        raise InvalidPickle("a quantised tensor by a scheme with other numbers than exports have")
    _, scales, zero_points, axis = fields
    if not 0 <= axis < len(tensor.size):
        raise InvalidPickle(f"scales along axis {axis} of {len(tensor.size)}")
    for name, found, dtype in (("scales", scales, "Double"), ("zero points", zero_points, "Long")):
        if found.dtype != dtype or found.size != (tensor.size[axis],) or not found.contiguous:
            raise InvalidPickle(f"{name} of {found.dtype} {list(found.size)} for {tensor.size[axis]} rows")
    return tensor


def _fields(arguments: Value, count: int) -> tuple[Value, ...]:
    if not isinstance(arguments, Tuple) or len(arguments.items) != count:
        raise InvalidPickle(f"a tensor that is not described by {count} fields")
    return arguments.items


def _tensor(stored: Storage, offset: Value, size: Value, stride: Value, grad: Value, hooks: Value) -> Tensor:
    sizes, strides = _integers(size), _integers(stride)
    if kind_of(offset) != "int" or kind_of(grad) != "bool" or not isinstance(hooks, Hooks):
        raise InvalidPickle("a tensor whose offset, gradient or hooks are of another type")
    if len(sizes) != len(strides) or len(sizes) > rules.MAX_AXES:
        raise InvalidPickle(f"a tensor of {len(sizes)} sizes and {len(strides)} strides")
    if offset < 0 or min((*sizes, *strides), default=0) < 0:
        raise InvalidPickle("a tensor with a negative offset, size or stride")
    # The end of the elements that it reaches. (The C++ reader must also check each step for an overflow.)
    end = offset
    if 0 not in sizes:
        end += 1 + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    shown = math.prod(sizes)
    if end > stored.count or shown > max(stored.count, rules.MAX_EXPANDED):
        raise InvalidPickle(
            f"a tensor of sizes {sizes[:8]} that reaches beyond the {stored.count} numbers of its record"
        )
    step, contiguous = 1, True
    for length, found in zip(reversed(sizes), reversed(strides), strict=True):
        contiguous = contiguous and (found == step or length == 1)
        step *= length
    return Tensor(stored.dtype, sizes, contiguous)


def _integers(value: Value) -> tuple[int, ...]:
    if not isinstance(value, Tuple) or any(kind_of(item) != "int" for item in value.items):
        raise InvalidPickle("sizes or strides that are not whole numbers")
    return value.items
