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
class Masks:
    """What a model marks for each prompt: several choices, of which `scores` say how well each fits.

    `masks` is bool [prompts, choices, height, width] of the picture, `scores` float32 [prompts, choices]: how much of
    the mask and the object overlap, as the model estimates it.
    """

    masks: torch.Tensor
    scores: torch.Tensor

    @property
    def best(self) -> torch.Tensor:
        """The mask with the largest score of each prompt, [prompts, height, width]."""
        return self.masks[torch.arange(len(self.masks)), self.scores.argmax(dim=1)]


@dataclass(frozen=True)
class Segmentation:
    """The class of each pixel: `classes` is int64 [height, width] of the picture, `labels` names the numbers in it."""

    classes: torch.Tensor
    labels: tuple[str, ...]
