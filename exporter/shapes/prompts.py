"""Example prompts: points in a picture, of the object and beside it, and boxes as two corners."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from exporter.loading.prompts import CORNERS, NOWHERE, PADDING

# The inputs that are made together.
PROMPTS = ("input_points", "input_labels")
# Labels of an example's points, in turn.
_LABELS = (1, 0, 1, 1, 0)


def draw_prompts(shape: Mapping[str, int], seed: int) -> dict[str, torch.Tensor]:
    """Both inputs, at random. Every second example has boxes, if there is room for their corners.

    Args:
        shape: the size of every axis, by name: batch, prompts, points, height, width.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (shape["batch"], shape["prompts"], shape["points"])
    points = torch.rand(*size, 2, generator=generator) * torch.tensor([shape["width"], shape["height"]])
    turn = torch.arange(size[2]).expand(size) + seed
    labels = torch.tensor(_LABELS)[turn % len(_LABELS)]
    if size[2] > 3:
        # As processors pad, and a point that is none.
        labels[..., -1], points[:, :, -1] = PADDING, PADDING
        labels[..., -2] = NOWHERE
    if seed % 2 == 0 and size[2] >= len(CORNERS):
        ends = points[:, :, :2]
        points[:, :, :2] = torch.stack([ends.amin(dim=2), ends.amax(dim=2)], dim=2)
        labels[..., :2] = torch.tensor(CORNERS)
    return {"input_points": points, "input_labels": labels}
