"""Points and boxes that say which object of a picture a model shall mark (SAM), as two inputs of fixed meaning.

The model takes points, labels and boxes, each of which may be left out; the number of its tokens depends on which. A
file has points and labels alone: a box is two points, its corners, with labels of their own, as in the files that the
authors of SAM publish. What is made of them is compared with the model's own encoder before anything is exported.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from exporter.loading.model_errors import named_model_errors
from runtime.errors import ModelFailedError
from runtime.host.torchscript import script

# The classes whose prompts are known.
PROMPTED = ("SamModel",)
# Labels: of padding, of no place, and of the corners of a box. A point has 0 or 1.
PADDING, NOWHERE, CORNERS = -10, -1, (2, 3)


def take_prompts(model: Any) -> None:
    """Give the model's encoder of prompts points and labels that stand for boxes too.

    Raises:
        ModelFailedError: it then gives other tokens than before, or fails itself.
    """
    encoder = model.prompt_encoder
    own = encoder.forward
    encoder.forward = MethodType(_embed, encoder)
    side = float(encoder.input_image_size)
    generator = torch.Generator().manual_seed(0)
    points, boxes = (torch.rand(2, 3, size, generator=generator) * side for size in (4, 4))
    points, labels = points.reshape(2, 3, 2, 2), torch.tensor([1, 0]).expand(2, 3, 2)
    corners, kinds = boxes.reshape(2, 3, 2, 2), torch.tensor(CORNERS).expand(2, 3, 2)
    both = (torch.cat([points, corners], dim=2), torch.cat([labels, kinds], dim=2))
    with named_model_errors("points and boxes"), torch.no_grad():
        for given, expected in (
            ((points, labels), own(points, labels, None, None)),
            ((corners, kinds), own(None, None, boxes, None)),
            (both, own(points, labels, boxes, None)),
        ):
            found = encoder(*given)
            if not all(map(torch.equal, found, expected)):
                raise ModelFailedError(
                    f"{type(model).__name__} makes other tokens of points and boxes than is known of it",
                    "the encoder of prompts that transformers has",
                    "report the model",
                )


def _embed(
    self: Any, input_points: torch.Tensor, input_labels: torch.Tensor, **_others: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of the prompts, [batch, prompts, tokens, hidden], and the vectors of an image without a mask."""
    places = self.shared_embedding((input_points + 0.5) / self.input_image_size)
    kinds = torch.cat([kind.weight for kind in self.point_embed])
    tokens = script(_tokens)(places, input_labels, self.not_a_point_embed.weight, kinds)
    side = self.image_embedding_size
    dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(input_points.shape[0], -1, side[0], side[1])
    return tokens, dense


def _tokens(places: torch.Tensor, labels: torch.Tensor, nowhere: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """A token per point, and where there are no boxes one more, which stands for no place."""
    label = labels.unsqueeze(-1)
    tokens = torch.where(label == -1, nowhere, places)
    tokens = torch.where(label == -10, torch.zeros_like(tokens), tokens)
    for kind in range(4):
        tokens = torch.where(label == kind, tokens + kinds[kind], tokens)
    first = (labels == 2).sum(dim=-1)
    second = (labels == 3).sum(dim=-1)
    boxes = int(first.max())
    if boxes > 1 or int(first.min()) != boxes or int(second.min()) != boxes or int(second.max()) != boxes:
        raise ValueError("input_labels: either each prompt has one box, with the labels 2 and 3, or none has")
    if boxes == 0:
        shape = [tokens.size(0), tokens.size(1), 1, tokens.size(3)]
        tokens = torch.cat([tokens, nowhere.reshape(1, 1, 1, -1).expand(shape)], dim=2)
    return tokens
