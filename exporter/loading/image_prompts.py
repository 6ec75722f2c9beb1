"""How places in a picture become a file's inputs, and its outputs masks: compared with the folder's own processor."""

from __future__ import annotations

from typing import Any

import torch

from runtime.format.manifest import PicturePrompts
from runtime.image.prompts import inputs_of, masks_of, resized

_SIZES = ((37, 91), (120, 64), (50, 50))


def picture_prompts(processor: Any) -> tuple[PicturePrompts | None, list[str]]:
    """What the manifest says of them, and notes; None where the processor does something else.

    Args:
        processor: the folder's, of transformers; None if there is none.
    """
    if processor is None:
        return None, ["prompts are inputs in the model's own pixels: the folder has no image processor"]
    name = type(processor).__name__
    try:
        padded = (int(processor.pad_size["height"]), int(processor.pad_size["width"]))
        rules = PicturePrompts(int(processor.size["longest_edge"]), padded)
        if all(_agrees(processor, rules, size) for size in _SIZES):
            return rules, []
    # Of another processor, or one with odd settings.
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        return None, [f"prompts are inputs in the model's own pixels: {name} cannot be read: {error}"]
    return None, [f"prompts are inputs in the model's own pixels: {name} places them in a way that is not known"]


def _agrees(processor: Any, rules: PicturePrompts, size: tuple[int, int]) -> bool:
    """Whether the processor places points, and makes masks, as the rules say."""
    from transformers import SamProcessor

    generator = torch.Generator().manual_seed(size[0])
    points = torch.rand(2, 3, 2, generator=generator) * torch.tensor([size[1], size[0]])
    boxes = torch.rand(2, 4, generator=generator) * min(size)
    made = SamProcessor(processor)(
        torch.zeros(3, *size, dtype=torch.uint8),
        input_points=[points.tolist()],
        input_labels=[[[1, 0, 1]] * 2],
        input_boxes=[boxes.tolist()],
        return_tensors="pt",
    )
    ours = inputs_of(rules, size, points.tolist(), [[1, 0, 1]] * 2, boxes.tolist())
    expected = torch.cat([made["input_points"], made["input_boxes"].reshape(1, 2, 2, 2)], dim=2)
    if not torch.allclose(ours["input_points"].double(), expected.double(), atol=1e-3):
        return False
    if [tuple(one) for one in made["reshaped_input_sizes"].tolist()] != [resized(rules, size)]:
        return False
    masks = torch.randn(2, 3, 16, 16, generator=generator)
    (theirs,) = processor.post_process_masks([masks], [size], made["reshaped_input_sizes"])
    return torch.equal(masks_of(rules, size, masks), theirs)
