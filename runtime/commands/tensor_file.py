"""Read input tensors from a file: JSON, safetensors or NumPy's npz.

The only module of the runtime that imports numpy, and only for npz.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from runtime.errors import ExtraMissingError, InputFileError
from runtime.format.golden import read_tensors
from runtime.format.manifest import TensorSpec


def read_inputs(path: str, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Inputs by name. JSON holds `{"input_ids": [[101, …]], …}`; numbers take the declared dtype.

    Raises:
        InputFileError: the file cannot be read or is of another kind.
        ExtraMissingError: an npz without numpy.
    """
    if path.endswith(".json"):
        return _read_json(path, {spec.name: spec for spec in specs})
    if path.endswith(".safetensors"):
        return dict(read_tensors(path))
    if path.endswith(".npz"):
        return _read_npz(path)
    raise InputFileError(f"{path} has an unknown ending", ".json, .safetensors or .npz")


def _read_json(path: str, specs: dict[str, TensorSpec]) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputFileError(f"cannot read {path}: {error}", "a JSON file") from error
    if not isinstance(value, dict):
        raise InputFileError(f"{path} holds a {type(value).__name__}", 'an object such as {"input_ids": [[101, 102]]}')
    try:
        return {name: to_tensor(name, rows, specs.get(name)) for name, rows in value.items()}
    except InputFileError as error:
        raise InputFileError(f"{path}: {error.found}", error.expected) from error


def to_tensor(name: str, rows: Any, spec: TensorSpec | None) -> torch.Tensor:
    """A tensor from nested lists of numbers, as JSON has them; if `spec` is given, with its dtype.

    Raises:
        InputFileError: they are not numbers, or not rectangular.
    """
    try:
        tensor = torch.tensor(rows)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputFileError(
            f"{name!r} is not a tensor ({error})", "nested lists of numbers, all rows of one length"
        ) from error
    # JSON does not distinguish 1 from 1.0, and an empty list has no type; conversions without loss are made.
    if spec is not None and spec.dtype == "float32" and not tensor.dtype.is_floating_point:
        return tensor.float()
    return tensor if tensor.numel() else tensor.long()


def _read_npz(path: str) -> dict[str, Any]:
    try:
        import numpy
    except ImportError:
        raise ExtraMissingError(
            "reading .npz needs the package numpy, which is not installed", "", "pip install numpy"
        ) from None
    import zipfile

    try:
        arrays = numpy.load(path, allow_pickle=False)
        if not hasattr(arrays, "files"):
            raise InputFileError(f"{path} is a single array", "named arrays in .npz", "save it with numpy.savez")
        with arrays:
            return {name: arrays[name] for name in arrays.files}
    # MemoryError: the header of an array may declare any size.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        reason = "it holds pickled objects, or is not an npz" if "pickle" in str(error) else str(error)
        raise InputFileError(f"cannot read {path}: {reason}", "a NumPy .npz file of plain arrays") from error
