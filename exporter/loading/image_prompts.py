"""Points and boxes beside an image (SAM): any of them may be left out, which a file says by a number in their place."""

from __future__ import annotations

from typing import Any

import torch

from runtime.errors import TaskError

# What fills a tensor that the caller leaves out: no place in an image.
ABSENT = -100_000


class Prompted(torch.nn.Module):
    """Calls a model with those prompts that are there. Instances come from `prompted`."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole
        self.config = whole.config

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_points: torch.Tensor,
        input_labels: torch.Tensor,
        input_boxes: torch.Tensor,
    ) -> Any:
        """The model's output."""
        prompts: dict[str, torch.Tensor] = {}
        if is_there(input_points):
            prompts |= {"input_points": input_points, "input_labels": input_labels}
        if is_there(input_boxes):
            prompts["input_boxes"] = input_boxes
        return self.whole(pixel_values=pixel_values, **prompts)


def is_there(prompt: torch.Tensor) -> torch.Tensor:
    """Whether the caller gave it, as a tensor of one boolean."""
    return (prompt != ABSENT).any()


def prompted(whole: Any) -> Prompted:
    """The model, of which each prompt may be absent.

    Raises:
        TaskError: it is not SAM.
    """
    name = type(whole).__name__
    if name != "SamModel":
        raise TaskError(
            f"{name} reads points and boxes in its own way, which is not supported", "SamModel for mask-generation"
        )
    # Errors and the manifest name the class of the model.
    kind: type[Prompted] = type(name, (Prompted,), {})
    return kind(whole).eval()
