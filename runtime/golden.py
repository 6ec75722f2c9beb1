"""Cases: inputs together with the outputs that the original model gave for them.

In: `Case` values, or the bytes of a safetensors file. Out: the other one. Refuses names that are not
`<case>/input/<name>` or `<case>/output/<name>`. The only room of this package that imports safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from runtime.errors import InputFileError, ManifestDamagedError
from runtime.manifest import GOLDEN_FILE

_REMEDY = "export the model again, or copy the file again if it was damaged on the way"


@dataclass(frozen=True)
class Case:
    """One call: `inputs` and the `outputs` expected for them, each by name; `name` holds no slash."""

    name: str
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]


def dump_cases(cases: Sequence[Case]) -> bytes:
    """The safetensors form of `cases`."""
    tensors = {}
    for case in cases:
        for side, named in (("input", case.inputs), ("output", case.outputs)):
            for name, tensor in named.items():
                tensors[f"{case.name}/{side}/{name}"] = tensor.contiguous()
    return save_safetensors(tensors)


def parse_cases(data: bytes, origin: str) -> list[Case]:
    """The cases of a safetensors file, in the order of their names; `origin` names the file in errors.

    Raises:
        ManifestDamagedError: if the bytes are not safetensors or hold another name.
    """
    sides: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
    try:
        tensors = load_safetensors(data)
    except (SafetensorError, ValueError) as error:
        raise ManifestDamagedError(f"damaged {GOLDEN_FILE} of {origin}: {error}", "", _REMEDY) from error
    for key in sorted(tensors):
        parts = key.split("/")
        if len(parts) != 3 or parts[1] not in ("input", "output"):
            raise ManifestDamagedError(
                f"damaged {GOLDEN_FILE} of {origin}: a tensor named {key!r}",
                "<case>/input/<name> or <case>/output/<name>",
                _REMEDY,
            )
        name, side, tensor_name = parts
        sides.setdefault(name, {"input": {}, "output": {}})[side][tensor_name] = tensors[key]
    return [Case(name, case["input"], case["output"]) for name, case in sides.items()]


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        InputFileError: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return dict(load_safetensors(file.read()))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputFileError(f"cannot read {path}: {error}", "a safetensors file") from error
