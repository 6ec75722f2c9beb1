"""Check the caller's inputs against the manifest and arrange them in the order of the artifact's `forward`.

Anything on which the model would fail or compute nonsense is refused with the input's name: unknown or missing inputs,
dtypes that cannot be converted without loss, wrong ranks and sizes, integers out of range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from runtime.errors import InputNameError, InputRankError, InputSizeError, InputTypeError, InputValueError
from runtime.format.manifest import TensorSpec

# The dtypes that each declared dtype can be made from without loss.
_LOSSLESS = {
    "int64": (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    "float32": (torch.float32, torch.float16, torch.bfloat16),
}
_DTYPES = {"int64": torch.int64, "float32": torch.float32}


def arrange(specs: Sequence[TensorSpec], inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors to pass to `forward`, in order.

    Raises:
        InputNameError, InputTypeError, InputRankError, InputSizeError, InputValueError
    """
    names = [spec.name for spec in specs]
    for name in inputs:
        if name not in names:
            raise InputNameError(f"unknown input {name!r}", f"some of {', '.join(names)}")
    for spec in specs:
        if spec.fill is None and inputs.get(spec.name) is None:
            raise InputNameError(
                f"input {spec.name!r} is missing", f"at least {', '.join(s.name for s in specs if s.fill is None)}"
            )

    tensors = {spec.name: _convert(spec, inputs[spec.name]) for spec in specs if inputs.get(spec.name) is not None}
    sizes = _sizes(specs, tensors)
    for spec in specs:
        if spec.name not in tensors:
            assert spec.fill is not None  # missing required inputs were refused above
            shape = [sizes.get(axis.name, axis.minimum) for axis in spec.axes]
            tensors[spec.name] = torch.full(shape, spec.fill, dtype=_DTYPES[spec.dtype])
    return [tensors[name] for name in names]


def as_tensor(name: str, value: Any, expected: str) -> torch.Tensor:
    """A dense tensor on the CPU, which may share the value's memory; `name` and `expected` are for errors.

    Raises:
        InputTypeError: the value is no tensor or array of numbers that torch has.
    """
    if not isinstance(value, torch.Tensor):
        if not (hasattr(value, "__array_interface__") and hasattr(value, "flags") and hasattr(value, "astype")):
            raise InputTypeError(f"{name} is a {type(value).__name__}", expected)
        try:
            # from_numpy shares memory. An array that is read-only, byte-swapped or reversed must be copied first.
            shared = value.flags.writeable and value.dtype.isnative and all(stride >= 0 for stride in value.strides)
            array = value if shared else value.astype(value.dtype.newbyteorder("="), order="C")
            value = torch.from_numpy(array)
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"{name} is an array that torch cannot take ({error})", expected) from error
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise InputTypeError(
            f"{name} is a {value.layout} tensor on {value.device}", expected, "pass .cpu() and .to_dense()"
        )
    tensor: torch.Tensor = value
    return tensor


def _convert(spec: TensorSpec, value: Any) -> torch.Tensor:
    expected = f"a torch tensor or NumPy array of {spec.dtype} with axes [{', '.join(a.name for a in spec.axes)}]"
    found = as_tensor(f"input {spec.name!r}", value, expected)
    if found.dtype not in _LOSSLESS[spec.dtype]:
        raise InputTypeError(f"input {spec.name!r} has dtype {found.dtype}", expected, f"convert it to {spec.dtype}")
    if found.dim() != len(spec.axes):
        raise InputRankError(f"input {spec.name!r} has shape {list(found.shape)}", expected)
    return found.to(_DTYPES[spec.dtype])


def _sizes(specs: Sequence[TensorSpec], tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Check sizes and integers; return the sizes by axis name."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        if spec.name not in tensors:
            continue
        tensor = tensors[spec.name]
        for axis, size in zip(spec.axes, tensor.shape, strict=True):
            if size < axis.minimum or (axis.maximum is not None and size > axis.maximum):
                limit = f"at least {axis.minimum}" if axis.maximum is None else f"{axis.minimum} to {axis.maximum}"
                raise InputSizeError(f"input {spec.name!r} has {size} along its {axis.name} axis", limit)
            if size % axis.multiple:
                step = f"a multiple of {axis.multiple}"
                raise InputSizeError(f"input {spec.name!r} has {size} along its {axis.name} axis", step)
            other, owner = sizes.setdefault(axis.name, (size, spec.name))
            if other != size:
                raise InputSizeError(
                    f"input {spec.name!r} has {size} along its {axis.name} axis", f"{other}, as in input {owner!r}"
                )
        if spec.values is not None:
            low, high = (int(bound) for bound in tensor.aminmax())
            if low < spec.values.minimum or high > spec.values.maximum:
                wrong = low if low < spec.values.minimum else high
                raise InputValueError(
                    f"input {spec.name!r} holds {wrong}",
                    f"integers from {spec.values.minimum} to {spec.values.maximum}",
                )
        if spec.required_token_id is not None:
            required = spec.required_token_id
            counts = (tensor == required).sum(dim=-1).flatten()
            if int(counts.min()) < 1 or int(counts.min()) != int(counts.max()):
                raise InputValueError(
                    f"input {spec.name!r} holds the id {required} {counts.tolist()[:8]} times in its rows",
                    "it in every row, equally often",
                )
    return {name: size for name, (size, _) in sizes.items()}
