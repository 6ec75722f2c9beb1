"""What is declared where some sizes fail: pure functions from sizes to axes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from exporter.config.tasks import TASKS
from exporter.shapes.narrowing import narrow, narrow_axis
from exporter.shapes.test_shapes import Dimension, shapes_to_verify
from exporter.shapes.trace_plan import TracePlan
from runtime.format.manifest import Axis, TensorSpec, ValueRange


def plan_of(task: str, sizes: Mapping[str, tuple[int, int | None, int]]) -> TracePlan:
    """A plan of one input whose axes have these bounds and example sizes."""
    dimensions = {name: Dimension(Axis(name, low, high), example) for name, (low, high, example) in sizes.items()}
    spec = TensorSpec("x", "float32", tuple(dimension.axis for dimension in dimensions.values()))
    return TracePlan(TASKS[task], (spec,), dimensions, None, 0, frozenset(), "right", ())


IMAGE = {"batch": (1, None, 2), "height": (112, 320, 224), "width": (112, 320, 224)}


@pytest.mark.parametrize(
    ("axis", "good", "bad", "left", "words"),
    [
        (Axis("sequence", 1, 512), {128, 8}, {512, 511}, Axis("sequence", 1, 128), "sequences longer than 128"),
        (Axis("samples", 400, 900), {500, 800}, {400, 450}, Axis("samples", 500, 900), "samples shorter than 500"),
        (
            Axis("frames", 8, 300),
            {96, 128},
            {92, 200},
            Axis("frames", 96, 128),
            "frames longer than 128 or shorter than 96",
        ),
        # A step before a bound, for images: 224 and 192 are multiples of 32.
        (
            Axis("height", 112, 320),
            {192},
            {185, 154, 200},
            Axis("height", 112, 320, 16),
            "height not a multiple of 16",
        ),
        (Axis("height", 100, 300), set(), {100, 300, 192, 256}, Axis("height", 224, 224), "height other than 224"),
    ],
)
def test_one_axis(axis: Axis, good: set[int], bad: set[int], left: Axis, words: str) -> None:
    example = {"sequence": 128, "samples": 600, "frames": 100, "height": 224}[axis.name]
    assert narrow_axis(Dimension(axis, example), good | {example}, bad) == (left, words)


def test_an_image_model_that_is_wrong_at_some_sizes_keeps_one() -> None:
    """Whichever other sizes happened to be right: a trace that keeps a size is right elsewhere by chance."""
    plan = plan_of("image-classification", IMAGE)
    tried = shapes_to_verify(plan.dimensions, None, "quick")
    others = [trial for trial in tried if trial.shape["height"] != 224 or trial.shape["width"] != 224]
    assert len(others) >= 4 and len(tried) - len(others) >= 2
    for failed in (others, others[:1], others[1:]):
        envelope = narrow(plan, tried, {trial.name for trial in failed})
        assert envelope is not None
        kept = {name: (d.axis.minimum, d.axis.maximum) for name, d in envelope.plan.dimensions.items()}
        assert kept == {"batch": (1, None), "height": (224, 224), "width": (224, 224)}
        assert envelope.excluded == "sizes other than height 224, width 224"


def test_sizes_that_were_asked_for_are_tried_where_they_are_supported() -> None:
    dimensions = plan_of("image-classification", IMAGE).dimensions
    tried = shapes_to_verify(dimensions, None, "quick", ((224, 224), (120, 320), (518, 518)))
    assert tried[-1].shape == {"batch": 1, "height": 120, "width": 320}


def test_sizes_of_images_are_not_all_multiples_of_what_architectures_divide_by() -> None:
    tried = shapes_to_verify(plan_of("image-classification", IMAGE).dimensions, None, "quick")
    for axis in ("height", "width"):
        sizes = {trial.shape[axis] for trial in tried}
        for step in (2, 7, 14, 16, 32):
            assert any(size % step for size in sizes), (axis, step, sizes)


def test_nothing_is_left_where_the_example_fails() -> None:
    plan = plan_of("image-classification", IMAGE)
    tried = shapes_to_verify(plan.dimensions, None, "quick")
    assert narrow(plan, tried, {trial.name for trial in tried if dict(trial.shape) == plan.example}) is None


def test_without_padding_the_mask_of_padding_alone_holds_ones() -> None:
    """Patches of images of other shapes, prompts and global attention have masks of their own, which go on."""
    text, patches = (Axis("batch", 1, None), Axis("sequence", 1, 64)), (Axis("batch", 1, None), Axis("patches", 16, 16))
    masks = {
        "attention_mask": text,
        "pooling_mask": text,
        "global_attention_mask": text,
        "pixel_attention_mask": patches,
    }
    sizes = {"batch": Dimension(text[0], 2), "sequence": Dimension(text[1], 32), "patches": Dimension(patches[1], 16)}
    specs = tuple(TensorSpec(name, "int64", axes, ValueRange(0, 1)) for name, axes in masks.items())
    plan = TracePlan(TASKS["feature-extraction"], specs, sizes, "sequence", 0, frozenset(), "right", ())
    tried = shapes_to_verify(sizes, "sequence", "quick")
    supported = narrow(plan, tried, {trial.name for trial in tried if trial.padded})
    assert supported is not None and supported.excluded == "padding"
    kept = {spec.name: spec.values for spec in supported.plan.inputs}
    assert kept == {name: ValueRange(int(name == "attention_mask"), 1) for name in masks}
