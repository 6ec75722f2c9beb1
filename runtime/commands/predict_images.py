"""`run-model predict --image`: the result of each picture, one JSON object per line, in the order of the options."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from runtime.commands.predict_media import Media
from runtime.errors import ExportedModelError
from runtime.format.manifest import Manifest

_PICTURES = Media(
    "image",
    "picture",
    {
        "top_k": "image-classification",
        "threshold": "object-detection",
        "points": "mask-generation",
        "box": "mask-generation",
    },
)


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
    # One prompt for each picture.
    if "points" in arguments:
        arguments["points"] = [[arguments["points"]]]
    if "box" in arguments:
        arguments["boxes"] = [[arguments.pop("box")]]
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

    from runtime.image import Masks, Segmentation
    from runtime.text.results import Classification

    if isinstance(result, Classification):
        return dataclasses.asdict(result)
    if isinstance(result, torch.Tensor):
        return {"embedding": result.tolist()}
    if isinstance(result, Segmentation):
        counts = torch.bincount(result.classes.flatten(), minlength=len(result.labels)).tolist()
        return {"pixels": {label: count for label, count in zip(result.labels, counts, strict=True) if count}}
    if isinstance(result, Masks):
        found = zip(result.masks[0], result.scores[0].tolist(), strict=True)
        ranked = sorted(found, key=lambda pair: pair[1], reverse=True)
        return {"masks": [{"score": score, "pixels": int(mask.sum()), "box": _around(mask)} for mask, score in ranked]}
    if isinstance(result, list):
        return {"objects": [dataclasses.asdict(one) for one in result]}
    return {name: tensor.tolist() for name, tensor in result.items()}


def _around(mask: Any) -> list[int] | None:
    """Left, top, right and bottom of the pixels of a mask; None if it has none."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if not len(rows):
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
