"""The stored verification cases: inputs together with the outputs that the original model computed for them.

They are kept as safetensors; `runtime.format.manifest` specifies the names. The only module of the runtime that
imports safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from runtime.errors import InputFileError, ManifestDamagedError
from runtime.format.manifest import GOLDEN_FILE
from runtime.format.noise import MOST_NUMBERS, Recipe, decode

# At most so many numbers of one output are stored: 256 KB, enough to reveal any fault of a kernel.
SAMPLE = 2**16
# To keep small files small, a sample is made smaller, but never than this.
_LEAST_SAMPLE = 2**8

_SIDE = re.compile(r"input|noise|ones|output|every-([1-9][0-9]{0,8})", re.ASCII)
_REMEDY = "export the model again, or copy the file again if it was damaged on the way"


@dataclass(frozen=True)
class Case:
    """One call: `inputs` and the `outputs` expected for them, each by name; `name` contains no slash.

    An output named in `strides` is a sample: every N-th number of the flattened output. An input named in `recipes` is
    stored as its recipe.
    """

    name: str
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    strides: Mapping[str, int] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)


def sampled(case: Case, limit: int = SAMPLE) -> Case:
    """The case with each output of more than `limit` numbers reduced to an even sample, as an artifact stores it."""
    steps = {name: -(-tensor.numel() // limit) for name, tensor in case.outputs.items() if tensor.numel() > limit}
    outputs = {
        name: tensor.flatten()[:: steps[name]].clone() if name in steps else tensor
        for name, tensor in case.outputs.items()
    }
    # The stride of a sample of a sample is the product.
    strides = dict(case.strides) | {name: step * case.strides.get(name, 1) for name, step in steps.items()}
    return Case(case.name, case.inputs, outputs, strides, case.recipes)


def dump_within(cases: Sequence[Case], limit: int) -> bytes:
    """The cases with sampled outputs, the samples so small that all take at most `limit` bytes if that can be."""
    numbers = SAMPLE
    data = dump_cases([sampled(case, numbers) for case in cases])
    while len(data) > limit and numbers > _LEAST_SAMPLE:
        numbers //= 2
        data = dump_cases([sampled(case, numbers) for case in cases])
    return data


def dump_cases(cases: Sequence[Case]) -> bytes:
    """The safetensors form of `cases`."""
    tensors = {}
    for case in cases:
        for name, tensor in case.inputs.items():
            recipe = case.recipes.get(name)
            if recipe is None or tensor.numel() > MOST_NUMBERS:
                tensors[f"{case.name}/input/{name}"] = tensor.contiguous()
            else:
                tensors[f"{case.name}/{recipe.side}/{name}"] = recipe.encode()
        for name, tensor in case.outputs.items():
            side = f"every-{case.strides[name]}" if name in case.strides else "output"
            tensors[f"{case.name}/{side}/{name}"] = tensor.contiguous()
    return save_safetensors(tensors)


def parse_cases(data: bytes, origin: str) -> list[Case]:
    """The cases of a safetensors file, in the order of their names; `origin` names the file in errors.

    Raises:
        ManifestDamagedError: if the bytes are not safetensors, or hold another name or a recipe for no tensor.
    """
    cases: dict[str, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, int], dict[str, Recipe]]] = {}
    try:
        tensors = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ManifestDamagedError(f"damaged {GOLDEN_FILE} of {origin}: {error}", "", _REMEDY) from error
    for key in sorted(tensors):
        parts = key.split("/")
        side = _SIDE.fullmatch(parts[1]) if len(parts) == 3 else None
        if side is None:
            raise ManifestDamagedError(
                f"damaged {GOLDEN_FILE} of {origin}: a tensor named {key!r}",
                "<case>/input|noise|ones|output|every-N/<name>",
                _REMEDY,
            )
        inputs, outputs, strides, recipes = cases.setdefault(parts[0], ({}, {}, {}, {}))
        if parts[1] in ("noise", "ones"):
            try:
                recipes[parts[2]] = decode(parts[1], tensors[key])
            except ValueError as error:
                raise ManifestDamagedError(
                    f"damaged {GOLDEN_FILE} of {origin}: {key} holds {error}", "a recipe for a tensor", _REMEDY
                ) from error
            inputs[parts[2]] = recipes[parts[2]].make()
        else:
            (inputs if parts[1] == "input" else outputs)[parts[2]] = tensors[key]
        if side[1]:
            strides[parts[2]] = int(side[1])
    return [Case(name, *case) for name, case in cases.items()]


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
