"""The sizes of images that a model folder's own image processor makes.

The processor is run on blank photos: which of its settings count, and how sizes are rounded, differs from class to
class. Where it cannot be run, its settings are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoImageProcessor

from exporter.config.request import ExportRequest
from exporter.loading.hub import ModelFiles

# Height and width.
Size = tuple[int, int]

# As cameras and scanners make them: 4:3 and 16:9, both ways up, and a square.
PHOTOS: tuple[Size, ...] = ((480, 640), (1080, 1920), (640, 480), (1920, 1080), (512, 512))


def read_processor(
    files: ModelFiles, settings: Mapping[str, Any], model: Any, request: ExportRequest
) -> tuple[Any, tuple[Size, ...], list[str]]:
    """The folder's processor, the sizes that it makes of `PHOTOS`, without duplicates, and notes on how they were got.

    None and empty without a processor, and for models that take no pictures.
    """
    if not settings or "pixel_values" not in inspect.signature(model.forward).parameters:
        return None, (), []
    processor = None
    try:
        processor = files.load(AutoImageProcessor, trust_remote_code=request.trust_remote_code)
        made = [_size(processor(torch.zeros(3, *photo, dtype=torch.uint8), return_tensors="pt")) for photo in PHOTOS]
    # Everything: a processor may ask for more than an image, for a package, or be the folder's own code.
    except Exception as error:  # noqa: BLE001
        found = _from_settings(settings)
        reason = " ".join(str(error).split())[:200]
        return processor, found, [f"the folder's image processor could not be run, so its settings were read: {reason}"]
    sizes = tuple(dict.fromkeys(size for size in made if size is not None))
    return processor, sizes, [f"the folder's image processor makes images of {listed(sizes)}"] if sizes else []


def processor_grids(files: ModelFiles, settings: Mapping[str, Any], request: ExportRequest) -> tuple[Size, ...]:
    """Heights and widths in patches that the processor makes of `PHOTOS`; empty if it makes no patches."""
    if "max_num_patches" not in settings:
        return ()
    try:
        processor = files.load(AutoImageProcessor, trust_remote_code=request.trust_remote_code)
        made = [processor(torch.zeros(3, *photo, dtype=torch.uint8), return_tensors="pt") for photo in PHOTOS]
        grids = [one["spatial_shapes"][0].tolist() for one in made]
        return tuple(dict.fromkeys((height, width) for height, width in grids))
    # As above; `processor_sizes` has said why.
    except Exception:  # noqa: BLE001
        return ()


def listed(sizes: tuple[Size, ...]) -> str:
    """For people: `224x224, 750x1333`."""
    return ", ".join(f"{height}x{width}" for height, width in sizes)


def _size(made: Mapping[str, Any]) -> Size | None:
    """Height and width of the images; None if the processor makes patches."""
    pixels = made["pixel_values"]
    return (int(pixels.shape[-2]), int(pixels.shape[-1])) if pixels.dim() in (4, 5) else None


def _from_settings(settings: Mapping[str, Any]) -> tuple[Size, ...]:
    for key in ("pad_size", "crop_size", "size"):
        size = settings.get(key)
        if isinstance(size, int):
            return ((size, size),)
        if isinstance(size, dict) and {"height", "width"} <= set(size):
            return ((int(size["height"]), int(size["width"])),)
        if isinstance(size, dict) and isinstance(size.get("shortest_edge"), int):
            return ((size["shortest_edge"], size["shortest_edge"]),)
    return ()
