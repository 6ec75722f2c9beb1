"""Narrow the supported shapes to those that were correct, if the model or the file failed at some.

A session refuses inputs outside the supported shapes by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.config.forward_parameters import MASKS
from exporter.shapes.test_shapes import Dimension, TestShape
from exporter.shapes.trace_plan import TracePlan
from runtime.format.manifest import Axis, TensorSpec, ValueRange

# Steps that architectures demand: patches, windows, blocks, pooling.
STEPS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class SupportedShapes:
    """The narrowed plan, the names of the test shapes inside it, and in words what was excluded."""

    plan: TracePlan
    inside: frozenset[str]
    excluded: str


@dataclass(frozen=True)
class _Restriction:
    """One possible restriction: the remaining axes by name, and whether padding is excluded."""

    excluded: str
    axes: Mapping[str, Axis] = field(default_factory=dict)
    unpadded: bool = False

    def admits(self, test_shape: TestShape) -> bool:
        """Whether the test shape is inside."""
        return not (self.unpadded and test_shape.padded) and all(
            axis.minimum <= test_shape.shape[name] <= (axis.maximum or test_shape.shape[name])
            and test_shape.shape[name] % axis.multiple == 0
            for name, axis in self.axes.items()
        )

    def applied(self, plan: TracePlan) -> TracePlan:
        """The plan with narrowed axes and values."""
        dimensions = {
            name: Dimension(self.axes.get(name, dimension.axis), dimension.example)
            for name, dimension in plan.dimensions.items()
        }
        inputs = tuple(self._spec(spec, plan.padded_axis) for spec in plan.inputs)
        padded = None if self.unpadded else plan.padded_axis
        return dataclasses.replace(plan, dimensions=dimensions, inputs=inputs, padded_axis=padded)

    def _spec(self, spec: TensorSpec, padded_axis: str | None) -> TensorSpec:
        axes = tuple(self.axes.get(axis.name, axis) for axis in spec.axes)
        # Other masks say something else: which patches are real, which tokens are a prompt or attend globally.
        whole = self.unpadded and padded_axis in MASKS.get(spec.name, ())
        return dataclasses.replace(spec, axes=axes, values=ValueRange(1, 1) if whole else spec.values)


def narrow(
    plan: TracePlan, tried: Sequence[TestShape], failed: Collection[str], retried: bool = False
) -> SupportedShapes | None:
    """The widest range of shapes in which nothing failed; None if there is none.

    Restrictions are tried from the mildest to the strictest. Every test shape inside must have passed, and the traced
    shape must be inside, together with a second one unless all axes are fixed. `retried`: the caller verifies other
    shapes inside the result. Then the traced shape is enough, and multiples may be required, for which a few shapes
    that pass would prove little.
    """
    for restriction in _restrictions(plan, tried, retried):
        inside = [test_shape for test_shape in tried if restriction.admits(test_shape)]
        traced = any(dict(test_shape.shape) == plan.example for test_shape in inside)
        narrowed = restriction.applied(plan)
        enough = retried or len(inside) >= 2 or all(dimension.fixed for dimension in narrowed.dimensions.values())
        smaller = len(inside) < len(tried)
        if traced and enough and smaller and not any(test_shape.name in failed for test_shape in inside):
            return SupportedShapes(narrowed, frozenset(test_shape.name for test_shape in inside), restriction.excluded)
    return None


def narrow_axis(dimension: Dimension, good: Collection[int], bad: Collection[int]) -> tuple[Axis, str]:
    """The remaining range of one axis, whose sizes were tried alone, and in words what is excluded.

    The mildest restriction is preferred: one bound, a multiple, both bounds; for images a multiple before a bound.
    """
    axis, example = dimension.axis, dimension.example
    lows = sorted(size for size in (*good, axis.minimum) if size <= example)
    highs = sorted((size for size in good if size >= example), reverse=True)
    bounds = [Axis(axis.name, axis.minimum, size, axis.multiple) for size in highs]
    bounds += [Axis(axis.name, size, axis.maximum, axis.multiple) for size in lows]
    steps = [_stepped(axis, step) for step in STEPS if example % step == 0 and step > axis.multiple]
    both = [Axis(axis.name, low, high, axis.multiple) for low in lows for high in highs]
    first, second = (steps, bounds) if axis.name in ("height", "width") else (bounds, steps)
    for left in (*first, *second, *both):
        if not any(_admits(left, size) for size in bad):
            return left, _excluded(axis, left)
    return Axis(axis.name, example, example), f"{axis.name} other than {example}"


def _admits(axis: Axis, size: int) -> bool:
    return axis.minimum <= size and (axis.maximum is None or size <= axis.maximum) and size % axis.multiple == 0


def _excluded(axis: Axis, left: Axis) -> str:
    noun = f"{axis.name}s" if axis.name == "sequence" else axis.name
    bounds = []
    if left.minimum == left.maximum:
        return f"{noun} other than {left.minimum}"
    if left.multiple != axis.multiple:
        return f"{noun} not a multiple of {left.multiple}"
    if left.maximum != axis.maximum:
        bounds.append(f"longer than {left.maximum}")
    if left.minimum != axis.minimum:
        bounds.append(f"shorter than {left.minimum}")
    return f"{noun} {' or '.join(bounds)}"


def with_axis(plan: TracePlan, axis: Axis) -> TracePlan:
    """The plan with one axis narrowed."""
    return _Restriction("", {axis.name: axis}).applied(plan)


def with_images_fixed(plan: TracePlan) -> tuple[TracePlan, str] | None:
    """The plan for images of the example's size alone, and in words what is excluded; None if that changes nothing."""
    images = [name for name in ("height", "width") if name in plan.dimensions and not plan.dimensions[name].fixed]
    if not images:
        return None
    restriction = next(_images_fixed(plan, images, images))
    return restriction.applied(plan), restriction.excluded


def _restrictions(plan: TracePlan, tried: Sequence[TestShape], retried: bool) -> Iterator[_Restriction]:
    """From the mildest to the strictest."""
    lengths = [name for name, dimension in plan.dimensions.items() if name != "batch" and not dimension.fixed]
    images = [name for name in lengths if name in ("height", "width")]
    if images and not retried:
        # A trace that kept one image size is correct at others only by chance: sizes near them prove nothing.
        yield from _images_fixed(plan, images, lengths)
        return
    for name in lengths:
        yield from _along_axis(plan.dimensions[name], {test_shape.shape[name] for test_shape in tried}, retried)
    yield _Restriction("padding", unpadded=True)
    sizes = ", ".join(f"{name} {plan.example[name]}" for name in lengths)
    if lengths and retried:
        yield _fixed(plan, lengths, f"sizes other than {sizes}")
    yield _fixed(plan, ["batch"], f"batches other than {plan.example['batch']}")
    if lengths:
        yield _fixed(plan, lengths, f"sizes other than {sizes}")
        yield _fixed(plan, lengths, f"padding, and sizes other than {sizes}", unpadded=True)
    yield _fixed(plan, ["batch", *lengths], f"shapes other than {plan.example_sizes}")
    yield _fixed(plan, ["batch", *lengths], f"padding, and shapes other than {plan.example_sizes}", unpadded=True)


def _along_axis(dimension: Dimension, tried: Collection[int], retried: bool) -> Iterator[_Restriction]:
    """An upper bound, a lower bound, or a multiple, for one axis."""
    axis, example = dimension.axis, dimension.example
    noun = f"{axis.name}s" if axis.name == "sequence" else axis.name
    for size in sorted((size for size in tried if size >= example), reverse=True):
        yield _Restriction(f"{noun} longer than {size}", {axis.name: dataclasses.replace(axis, maximum=size)})
    for size in sorted(size for size in tried if axis.minimum < size <= example):
        yield _Restriction(f"{noun} shorter than {size}", {axis.name: dataclasses.replace(axis, minimum=size)})
    for step in (step for step in STEPS if retried and example % step == 0 and step > axis.multiple):
        left = _stepped(axis, step)
        excluded = f"other than {left.minimum}" if left.minimum == left.maximum else f"not a multiple of {step}"
        yield _Restriction(f"{axis.name} {excluded}", {axis.name: left})


def _images_fixed(plan: TracePlan, images: Sequence[str], lengths: Sequence[str]) -> Iterator[_Restriction]:
    for names in (images, lengths, ["batch", *lengths]):
        excluded = "sizes other than " + ", ".join(f"{name} {plan.example[name]}" for name in names)
        yield _fixed(plan, names, excluded)
        yield _fixed(plan, names, f"padding, and {excluded}", unpadded=True)


def _stepped(axis: Axis, step: int) -> Axis:
    high = None if axis.maximum is None else axis.maximum // step * step
    return Axis(axis.name, -(-axis.minimum // step) * step, high, step)


def _fixed(plan: TracePlan, names: Sequence[str], excluded: str, unpadded: bool = False) -> _Restriction:
    sizes = {name: plan.example[name] for name in names}
    return _Restriction(excluded, {name: Axis(name, size, size) for name, size in sizes.items()}, unpadded)
