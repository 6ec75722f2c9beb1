"""SigLIP 2 with images of any proportions: tables of positions for each image's grid of patches, made in the file.

The original resizes its table for each image of a batch in a Python loop, whose sizes and whose length a trace would
keep. A scripted function, which a trace records with its loop, calls the same operator for each row.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.tracing.patches.replacement import modules_named, replace
from runtime.host.torchscript import script

WHAT = "SigLIP 2's tables of positions: resized for each image's grid at each call"


def repair(model: torch.nn.Module) -> bool:
    """Replace the forward of the embeddings of patches."""
    found = modules_named(model, "Siglip2VisionEmbeddings")
    for module in found:
        replace(module, "forward", _forward)
    return bool(found)


def _forward(self: Any, pixel_values: torch.Tensor, spatial_shapes: torch.Tensor) -> torch.Tensor:
    """The patches with their positions, [batch, patches, hidden]."""
    patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
    side = self.position_embedding_size
    table = self.position_embedding.weight.reshape(side, side, -1)
    positions: torch.Tensor = script(_positions)(table, spatial_shapes, patches)
    embedded: torch.Tensor = patches + positions
    return embedded


def _positions(table: torch.Tensor, shapes: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """For each row the table in its height and width, flattened; places behind it have the first position."""
    grid = table.permute(2, 0, 1).unsqueeze(0).float()
    rows = []
    for index in range(shapes.shape[0]):
        height = int(shapes[index, 0])
        width = int(shapes[index, 1])
        resized = torch.ops.aten._upsample_bilinear2d_aa(grid, [height, width], False, None, None)
        found = resized.flatten(2)[0].transpose(0, 1)
        behind = found[:1].expand(patches.shape[1] - height * width, -1)
        rows.append(torch.cat([found, behind], dim=0))
    return torch.stack(rows).to(patches.dtype)
