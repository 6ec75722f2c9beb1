"""SAM: which prompts there are → decided in the file, from their values.

The original is called with or without points and boxes, and embeds those that it gets: points alone are followed by a
point that is none, points with boxes are not, and boxes alone have two tokens each. A trace keeps what its example had.
Here all are embedded, and a scripted function, which a trace records with its branches, keeps those that are there.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.loading.image_prompts import is_there
from exporter.tracing.patches.replacement import modules_named, replace

WHAT = "SAM's points and boxes: whether they are there is decided at each call"


def repair(model: torch.nn.Module) -> bool:
    """Replace the calls of the model and of its encoder of prompts."""
    for module in modules_named(model, "Prompted"):
        replace(module, "forward", _forward)
        for encoder in modules_named(module, "SamPromptEncoder"):
            replace(encoder, "forward", _embed)
    return bool(modules_named(model, "Prompted"))


def _forward(self: Any, **inputs: torch.Tensor) -> Any:
    return self.whole(**inputs)


def _embed(
    self: Any, input_points: torch.Tensor, input_labels: torch.Tensor, input_boxes: torch.Tensor, **_nothing: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings of the prompts that are there, and that of "no mask" at each place of the image."""
    points = self._embed_points(input_points, input_labels, pad=True)
    boxes = self._embed_boxes(input_boxes)
    sparse = torch.jit.script(_join)(points, boxes, is_there(input_points), is_there(input_boxes))
    height, width = self.image_embedding_size
    dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(input_points.shape[0], -1, height, width)
    return sparse, dense


def _join(
    points: torch.Tensor, boxes: torch.Tensor, with_points: torch.Tensor, with_boxes: torch.Tensor
) -> torch.Tensor:
    if bool(with_points):
        if bool(with_boxes):
            return torch.cat([points[:, :, :-1], boxes], dim=2)
        return points
    if bool(with_boxes):
        return boxes
    return points[:, :, :0]
