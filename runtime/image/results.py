"""The result types of `session.image`; labels of whole pictures are `runtime.text.Classification`."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Box:
    """A part of a picture, in its own pixels: from `left` to `right` and from `top` to `bottom`."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Detection:
    """An object in a picture. `score` is a probability."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True)
class Segmentation:
    """The class of each pixel: `classes` is int64 [height, width] of the picture, `labels` names the numbers in it."""

    classes: torch.Tensor
    labels: tuple[str, ...]
