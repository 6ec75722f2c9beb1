"""Example inputs: seeded random tensors for a plan, as a dict or as a tuple.

Floating-point inputs and the masks of images and audio are made by recipes, so that a file need not hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from exporter.shapes.prompts import PROMPTS, draw_prompts
from exporter.shapes.trace_plan import TracePlan
from runtime.format.manifest import TensorSpec, ValueRange
from runtime.format.noise import Recipe

# Images are noise on plain squares: detectors rank positions, and pure noise looks the same at all of them.
_SQUARE = 32
# Seeds for the inputs of one example; an image takes two.
_SEEDS = 256


@dataclass(frozen=True)
class ExampleInputs:
    """Tensors by name, in the plan's order, with the axes that the plan's inputs name.

    `recipes` say how some of them were made.
    """

    tensors: Mapping[str, torch.Tensor]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    def as_dict(self) -> dict[str, torch.Tensor]:
        """For keyword tracing (torch 2.0 and later)."""
        return dict(self.tensors)

    def as_tuple(self) -> tuple[torch.Tensor, ...]:
        """For positional tracing."""
        return tuple(self.tensors.values())


def make_inputs(
    plan: TracePlan, shape: Mapping[str, int], lengths: Sequence[int] | None = None, seed: int = 0
) -> ExampleInputs:
    """Seeded random inputs.

    Args:
        plan: the inputs.
        shape: the size of every axis, by name.
        lengths: the real length of each row along the padded axis; the rest of the row is padding.
        seed: of the random numbers.

    Raises:
        ValueError: the lengths are not one per row, each from 1 to the size of the axis.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, whole = shape["batch"], shape.get(plan.padded_axis or "", 1)
    lengths = list(lengths) if lengths is not None else [whole] * batch
    if len(lengths) != batch or not all(1 <= length <= whole for length in lengths):
        raise ValueError(f"lengths {lengths} do not fit a batch of {batch} with {plan.padded_axis} {whole}")
    real = torch.zeros((batch, whole), dtype=torch.bool)
    for row, length in enumerate(lengths):
        if plan.padding_side == "right" or plan.padded_axis != "sequence":
            real[row, :length] = True
        else:
            real[row, whole - length :] = True
    recipes = {
        spec.name: recipe
        for place, spec in enumerate(plan.inputs)
        if (recipe := _recipe(plan, spec, shape, lengths, seed * _SEEDS + 2 * place)) is not None
    }
    tensors = {
        spec.name: recipes[spec.name].make() if spec.name in recipes else _tensor(plan, spec, shape, real, generator)
        for spec in plan.inputs
    }
    if "input_points" in tensors:
        tensors |= draw_prompts(shape, seed)
    if "spatial_shapes" in tensors:
        limits = next(spec.values for spec in plan.inputs if spec.name == "spatial_shapes")
        tensors |= _grids(plan.grids, shape, seed, limits.maximum if limits is not None else 1)
    return ExampleInputs(tensors, recipes)


def _grids(
    known: Sequence[tuple[int, int]], shape: Mapping[str, int], seed: int, longest: int
) -> dict[str, torch.Tensor]:
    """For each image a height and width in patches, and a mask of its patches, in turn from what a processor makes.

    A square, a small one and a single row are added, and are all that there is without a processor.
    """
    most = shape["patches"]
    side = max(1, int(most**0.5))
    sizes = [*known, (side, side), (max(1, side // 2), side), (1, longest)]
    fitting = [size for size in sizes if size[0] * size[1] <= most and max(size) <= longest]
    chosen = torch.tensor([fitting[(seed + row) % len(fitting)] for row in range(shape["batch"])])
    mask = torch.arange(most)[None, :] < chosen.prod(dim=1, keepdim=True)
    return {"spatial_shapes": chosen, "pixel_attention_mask": mask.long()}


def _recipe(
    plan: TracePlan, spec: TensorSpec, shape: Mapping[str, int], lengths: Sequence[int], seed: int
) -> Recipe | None:
    """How to make an input of noise, or a mask of rows that end early; None if it is made otherwise."""
    names = [axis.name for axis in spec.axes]
    sizes = tuple(shape[name] for name in names)
    is_mask = spec.name.endswith("mask") and spec.fill is not None
    shorter = names[0] == "batch" and plan.padded_axis in names[1:] and min(lengths) < shape[plan.padded_axis]
    # Texts may be padded at the beginning, and their masks are small.
    of_text = "sequence" in names and (is_mask or shorter)
    if of_text or spec.name in ("bbox", *PROMPTS) or not (spec.dtype == "float32" or is_mask):
        return None
    return Recipe(
        shape=sizes,
        seed=None if is_mask else seed,
        block=_SQUARE if not is_mask and names[-2:] == ["height", "width"] else 0,
        axis=names.index(plan.padded_axis) if shorter and plan.padded_axis is not None else 0,
        lengths=tuple(lengths) if shorter else (),
    )


def _tensor(
    plan: TracePlan, spec: TensorSpec, shape: Mapping[str, int], real: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    sizes = [shape[axis.name] for axis in spec.axes]
    names = [axis.name for axis in spec.axes]
    mask = torch.ones(sizes, dtype=torch.bool)
    if plan.padded_axis in names and "batch" in names:
        place = names.index(plan.padded_axis)
        mask &= real.reshape([size if i in (0, place) else 1 for i, size in enumerate(sizes)])
    if spec.name == "pooling_mask":
        # The first third of each row's tokens stands for a prompt, which is not pooled.
        places = mask.long().cumsum(dim=-1)
        after_prompt: torch.Tensor = places > places[..., -1:] // 3
        return (mask & after_prompt).long()
    if spec.name.endswith("mask") and spec.fill is not None:
        return mask.long()
    if spec.dtype == "float32":
        return torch.rand(sizes, generator=generator) * mask
    assert spec.values is not None  # every integer input of a plan is bounded
    padding = plan.pad_id if spec.name.endswith("input_ids") else 0
    drawn = torch.where(mask, _draw(plan, spec, spec.values, sizes, generator), padding)
    end = plan.end_id if spec.required_token_id is None and spec.name == "input_ids" else spec.required_token_id
    if end is not None:
        # At each row's last real position, where tokenizers put it.
        last = (mask * torch.arange(1, sizes[-1] + 1)).argmax(dim=-1, keepdim=True)
        drawn = drawn.scatter(-1, last, end)
    return drawn


def _draw(
    plan: TracePlan, spec: TensorSpec, values: ValueRange, sizes: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    if spec.name == "token_type_ids" and len(sizes) == 2:
        # Segments, as tokenizers make them: zeros, then the higher types in order.
        share = torch.linspace(0, values.maximum + 0.999, sizes[-1]).long()
        return share.expand(*sizes).clone()
    drawn = torch.randint(values.minimum, values.maximum + 1, list(sizes), generator=generator)
    if spec.name == "bbox":
        # Left and top, then right and bottom, which are not smaller.
        first, second = drawn[..., :2], drawn[..., 2:]
        return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)
    if not spec.name.endswith("input_ids"):
        return drawn
    allowed = torch.ones(values.maximum + 1, dtype=torch.bool)
    allowed[: values.minimum] = False
    allowed[[i for i in plan.avoided_ids if 0 <= i <= values.maximum]] = False
    if not allowed.any():
        return drawn
    choice = allowed.nonzero().squeeze(1)
    return torch.where(allowed[drawn], drawn, choice[drawn % len(choice)])
