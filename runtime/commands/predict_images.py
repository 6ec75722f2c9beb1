"""`run-model predict --image`: the result of each picture, one JSON object per line, in the order of the options."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from runtime.commands.predict_media import Media
from runtime.errors import ExportedModelError
from runtime.format.manifest import Manifest

_PICTURES = Media("image", "picture", {"top_k": "image-classification", "threshold": "object-detection"})


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

    arguments = _PICTURES.arguments(options, manifest.task)
    method = getattr(load(options.file, **loading).image, METHODS.get(manifest.task, "numbers"))

    def answer(path: str) -> dict[str, Any]:
        # Returned, an error does not say that its picture is the first of one.
        (result,) = method([path], errors="return", **arguments)
        if isinstance(result, ExportedModelError):
            raise result
        return _fields(result)

    _PICTURES.print_lines(options.image, answer)
    return 0


def _fields(result: Any) -> dict[str, Any]:
    import torch

    from runtime.image import Segmentation
    from runtime.text.results import Classification

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
