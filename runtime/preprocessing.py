"""Call an artifact's method `preprocess`: from one picture or sound to the model's inputs for one row.

What the caller gives is compared with the manifest first, and what the method makes is compared with the model's
inputs.
"""

from __future__ import annotations

from typing import Any

import torch

from runtime import input_validation
from runtime.errors import ArtifactFailedError, InputRankError, InputSizeError, InputTaskError, InputTypeError
from runtime.format.manifest import Manifest, Preprocessing
from runtime.host.torchscript import FAILURES, ScriptModule, optimized_execution

# What it takes, by the kind: the dtype, and for people.
_DTYPES = {"image": torch.uint8, "audio": torch.float32}
_WORDS = {"image": "picture", "audio": "sound"}


def expect(manifest: Manifest, kind: str | None = None) -> Preprocessing:
    """What the method takes and makes.

    Raises:
        InputTaskError: the file has no such method, or one for another kind of data.
    """
    found = manifest.preprocessing
    if found is not None and kind in (None, found.kind):
        return found
    what = "pictures or sounds" if kind is None else f"{_WORDS[kind]}s"
    raise InputTaskError(
        f"the artifact makes no inputs of {what}",
        "an artifact that does; the export's choices say why it does not",
        "pass tensors made by the model's own processor",
    )


def preprocess(module: ScriptModule, manifest: Manifest, value: Any) -> dict[str, torch.Tensor]:
    """The inputs of one row, by name, with the batch axis.

    Args:
        module: the artifact's.
        manifest: the artifact's.
        value: a torch tensor or NumPy array: uint8 [height, width, channels], or float32 [samples].

    Raises:
        InputTaskError: the artifact has no such method.
        InputError: the value does not fit, or what is made of it does not fit the model.
        ArtifactFailedError: the method fails.
    """
    made = make(module, manifest, value)
    specs = [spec for spec in manifest.inputs if spec.name in made]
    arranged = input_validation.arrange(specs, made)
    return {spec.name: tensor for spec, tensor in zip(specs, arranged, strict=True)}


def make(module: ScriptModule, manifest: Manifest, value: Any) -> dict[str, torch.Tensor]:
    """The same, whether or not the model takes what is made."""
    rules = expect(manifest)
    tensor = _checked(rules, value)
    try:
        with torch.no_grad(), optimized_execution(False):
            made = module.preprocess(tensor)
        named = dict(zip(rules.inputs, made, strict=True))
        if not all(isinstance(one, torch.Tensor) for one in named.values()):
            raise TypeError("a result is not a tensor")
        return named
    except FAILURES as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactFailedError(
            f"the method preprocess failed on a {_WORDS[rules.kind]} of {list(tensor.shape)}: {lines[-1][:200]}",
            f"the inputs {', '.join(rules.inputs)}",
            "try another; if all fail, run `run-model check`, and export the model again",
        ) from error


def _checked(rules: Preprocessing, value: Any) -> torch.Tensor:
    what, dtype = _WORDS[rules.kind], _DTYPES[rules.kind]
    axes = ", ".join(str(axis.minimum) if axis.minimum == axis.maximum else axis.name for axis in rules.axes)
    expected = f"a torch tensor or NumPy array of {str(dtype).removeprefix('torch.')} with axes [{axes}]"
    tensor = input_validation.as_tensor(f"the {what}", value, expected)
    if tensor.dtype != dtype:
        raise InputTypeError(f"the {what} has dtype {str(tensor.dtype).removeprefix('torch.')}", expected)
    if tensor.dim() != len(rules.axes):
        raise InputRankError(f"the {what} has shape {list(tensor.shape)}", expected)
    for axis, size in zip(rules.axes, tensor.shape, strict=True):
        if size < axis.minimum or (axis.maximum is not None and size > axis.maximum):
            limit = f"at least {axis.minimum}" if axis.maximum is None else f"{axis.minimum} to {axis.maximum}"
            limit = str(axis.minimum) if axis.minimum == axis.maximum else limit
            raise InputSizeError(f"the {what} has {size} {axis.name}", limit)
    return tensor
