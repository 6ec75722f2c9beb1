"""`run-model predict --image`: one JSON object per picture, in the order of the options.

If a picture fails, its line holds the error and the others are answered; at the end InputFileError says how many
failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from runtime.errors import ExportedModelError, InputFileError, InputTaskError
from runtime.format.manifest import Manifest

# Option → the task that has it; of texts' options, pictures have `top_k` alone.
OPTIONS = {"top_k": "image-classification", "threshold": "object-detection"}


def predict_images(options: argparse.Namespace, manifest: Manifest, loading: dict[str, Any]) -> int:
    """Run the command.

    Args:
        options: the command's.
        manifest: the artifact's.
        loading: the arguments of `runtime.load`.

    Raises:
        InputTaskError: an option that the artifact's task does not have.
        InputFileError: pictures failed, which their lines say.
    """
    from runtime.image.api import METHODS
    from runtime.session import load

    arguments = _arguments(options, manifest.task)
    method = getattr(load(options.file, **loading).image, METHODS.get(manifest.task, "numbers"))
    failed, first = 0, ""
    for path in options.image:
        # One after the other, so that each is printed as soon as it is computed.
        (result,) = method([path], errors="return", **arguments)
        if isinstance(result, ExportedModelError):
            failed += 1
            first = first or f"{path}: {result}"
        print(json.dumps({"image": path} | _fields(result)), flush=True)
    if failed:
        count = len(options.image)
        raise InputFileError(f"{failed} of {count} picture{'s' * (count > 1)} failed; {first}")
    return 0


def _arguments(options: argparse.Namespace, task: str) -> dict[str, Any]:
    names = ("top_k", "threshold", "aggregation", "stride", "prompt_name", "dimensions", "truncate")
    given = {name: getattr(options, name) for name in names if getattr(options, name) not in (None, False)}
    for name in given:
        if OPTIONS.get(name) != task:
            flag = f"--{name.replace('_', '-')}"
            wanted = f"pictures for {OPTIONS[name]}" if name in OPTIONS else "texts"
            raise InputTaskError(f"{flag} with pictures for {task}", wanted, f"leave {flag} out")
    return given


def _fields(result: Any) -> dict[str, Any]:
    import torch

    from runtime.image import Segmentation
    from runtime.text.results import Classification

    if isinstance(result, ExportedModelError):
        return {"error": str(result)}
    if isinstance(result, Classification):
        return dataclasses.asdict(result)
    if isinstance(result, torch.Tensor):
        return {"embedding": result.tolist()}
    if isinstance(result, Segmentation):
        counts = torch.bincount(result.classes.flatten(), minlength=len(result.labels)).tolist()
        return {"pixels": {label: count for label, count in zip(result.labels, counts, strict=True) if count}}
    if isinstance(result, list):
        return {"objects": [dataclasses.asdict(one) for one in result]}
    return {name: tensor.tolist() for name, tensor in result.items()}
