"""Points and boxes in a picture's pixels → the model's inputs; and its outputs → masks of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from runtime.errors import InputSizeError, InputTypeError, InputValueError
from runtime.format.manifest import PicturePrompts
from runtime.image.results import Masks
from runtime.printing import shown

# Labels of the corners of a box, upper left and lower right.
CORNERS = (2, 3)


def resized(rules: PicturePrompts, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the model's picture, without its padding, for a picture of this height and width."""
    scale = rules.longest_side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def inputs_of(
    rules: PicturePrompts, size: tuple[int, int], points: Any = None, labels: Any = None, boxes: Any = None
) -> dict[str, torch.Tensor]:
    """`input_points` and `input_labels` of one picture, with the batch axis.

    Args:
        rules: the artifact's.
        size: height and width of the picture.
        points: for each prompt its points, x and y; None: there are boxes alone.
        labels: for each prompt a label per point, 1 for the object and 0 for what is beside it; None: all 1.
        boxes: for each prompt left, top, right and bottom; None: there are points alone.

    Raises:
        InputTypeError, InputSizeError, InputValueError: they do not fit.
    """
    if points is None and labels is not None:
        raise InputTypeError("labels without points", "a label per point", "leave labels out")
    if points is None and boxes is None:
        raise InputTypeError("a picture without prompts", "points or boxes", "say which object to mark")
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    if points is not None:
        places = _numbers("points", points, 3)
        if places.shape[2] != 2:
            raise InputSizeError(f"a point is {places.shape[2]} numbers", "x and y")
        kinds = torch.ones(places.shape[:2], dtype=torch.int64)
        if labels is not None:
            given = _numbers("labels", labels, 2)
            if given.shape != kinds.shape:
                raise InputSizeError(f"labels are {list(given.shape)}", f"a label per point, {list(kinds.shape)}")
            if not bool(((given == 0) | (given == 1)).all()):
                raise InputValueError("a label is neither 0 nor 1", "1 for the object, 0 for what is beside it")
            kinds = given.long()
        parts.append((places, kinds))
    if boxes is not None:
        sides = _numbers("boxes", boxes, 2)
        if sides.shape[1] != 4:
            raise InputSizeError(f"a box is {sides.shape[1]} numbers", "left, top, right and bottom")
        if parts and len(sides) != len(parts[0][0]):
            raise InputSizeError(f"{len(sides)} boxes for {len(parts[0][0])} prompts of points", "one per prompt")
        parts.append((sides.reshape(-1, 2, 2), torch.tensor(CORNERS).expand(len(sides), 2)))
    places = torch.cat([part[0] for part in parts], dim=1)
    height, width = resized(rules, size)
    scale = torch.tensor([width / size[1], height / size[0]], dtype=torch.float64)
    kinds = torch.cat([part[1] for part in parts], dim=1)
    return {"input_points": (places * scale).float().unsqueeze(0), "input_labels": kinds.unsqueeze(0)}


def masks_of(rules: PicturePrompts, size: tuple[int, int], masks: torch.Tensor) -> torch.Tensor:
    """Where the object is, as booleans [prompts, choices, height, width] of the picture.

    Args:
        rules: the artifact's.
        size: height and width of the picture.
        masks: the output `pred_masks` of the picture, [prompts, choices, rows, columns].
    """
    height, width = resized(rules, size)

    def scaled(found: torch.Tensor, to: Sequence[int]) -> torch.Tensor:
        made: torch.Tensor = torch.nn.functional.interpolate(found, size=list(to), mode="bilinear", align_corners=False)
        return made

    found: torch.Tensor = scaled(scaled(masks, rules.padded_size)[..., :height, :width], size) > 0
    return found


def marked(rules: PicturePrompts, size: tuple[int, int], outputs: dict[str, torch.Tensor]) -> Masks:
    """The result of one picture."""
    return Masks(masks_of(rules, size, outputs["pred_masks"]), outputs["iou_scores"])


def _numbers(name: str, value: Any, depth: int) -> torch.Tensor:
    """Lists in lists of finite numbers, as float64 with `depth` axes."""
    try:
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputTypeError(
            f"{name} of a picture are {shown(value)}"[:200],
            "lists of numbers, as many for each prompt",
            "call again for prompts with another number of points",
        ) from error
    if found.dim() != depth or not found.numel():
        raise InputSizeError(f"{name} of a picture have shape {list(found.shape)}", f"{depth} axes, none of them empty")
    if not bool(found.isfinite().all()):
        raise InputValueError(f"{name} hold a number that is not finite", "places in pixels")
    return found
