"""Narrow what is declared to what was right, where some shapes failed and the rest is sound.

In: the plan, the shapes tried, the names of those that failed. Out: an `Envelope`, or None where nothing sound is left.
A session refuses, by name, whatever lies outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.shapes.test_shapes import Dimension, Trial
from exporter.shapes.trace_plan import TracePlan
from runtime.format.manifest import Axis, TensorSpec, ValueRange

# Steps that architectures demand: patches, windows, blocks, pooling.
_STEPS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Envelope:
    """What is left: the narrowed plan, the names of the trials inside, and in words what was given up."""

    plan: TracePlan
    inside: frozenset[str]
    given_up: str


@dataclass(frozen=True)
class _Fix:
    """One way to narrow: axes by name to what is left of them, and whether padding goes."""

    words: str
    axes: Mapping[str, Axis] = field(default_factory=dict)
    unpadded: bool = False

    def admits(self, trial: Trial) -> bool:
        """Whether the trial lies inside."""
        return not (self.unpadded and trial.padded) and all(
            axis.minimum <= trial.shape[name] <= (axis.maximum or trial.shape[name])
            and trial.shape[name] % axis.multiple == 0
            for name, axis in self.axes.items()
        )

    def applied(self, plan: TracePlan) -> TracePlan:
        """The plan with narrowed axes and values."""
        dimensions = {
            name: Dimension(self.axes.get(name, dimension.axis), dimension.example)
            for name, dimension in plan.dimensions.items()
        }
        inputs = tuple(self._spec(spec) for spec in plan.inputs)
        padded = None if self.unpadded else plan.padded_axis
        return dataclasses.replace(plan, dimensions=dimensions, inputs=inputs, padded_axis=padded)

    def _spec(self, spec: TensorSpec) -> TensorSpec:
        axes = tuple(self.axes.get(axis.name, axis) for axis in spec.axes)
        whole = self.unpadded and spec.name.endswith("mask")
        return dataclasses.replace(spec, axes=axes, values=ValueRange(1, 1) if whole else spec.values)


def narrow(plan: TracePlan, tried: Sequence[Trial], failed: Collection[str], retried: bool = False) -> Envelope | None:
    """The widest sound envelope, tried from the smallest loss to the largest.

    Sound: every trial inside passed, the traced shape is inside, and so is a second trial, unless all axes are fixed.
    `retried`: the caller tries other shapes inside the envelope afterwards. The traced shape alone is then enough, and
    sizes may become multiples, of which a few that happen to pass say little of the next one.
    """
    for fix in _fixes(plan, tried, retried):
        inside = [trial for trial in tried if fix.admits(trial)]
        traced = any(dict(trial.shape) == plan.example for trial in inside)
        narrowed = fix.applied(plan)
        enough = retried or len(inside) >= 2 or all(dimension.fixed for dimension in narrowed.dimensions.values())
        smaller = len(inside) < len(tried)
        if traced and enough and smaller and not any(trial.name in failed for trial in inside):
            return Envelope(narrowed, frozenset(trial.name for trial in inside), fix.words)
    return None


def narrow_axis(dimension: Dimension, good: Collection[int], bad: Collection[int]) -> tuple[Axis, str]:
    """What is left of one axis whose sizes were tried alone, the traced size being good; and in words what is not.

    The smallest loss first: a bound, a step, both. Images go in steps sooner than they meet bounds.
    """
    axis, example = dimension.axis, dimension.example
    lows = sorted(size for size in (*good, axis.minimum) if size <= example)
    highs = sorted((size for size in good if size >= example), reverse=True)
    bounds = [Axis(axis.name, axis.minimum, size, axis.multiple) for size in highs]
    bounds += [Axis(axis.name, size, axis.maximum, axis.multiple) for size in lows]
    steps = [_stepped(axis, step) for step in _STEPS if example % step == 0 and step > axis.multiple]
    both = [Axis(axis.name, low, high, axis.multiple) for low in lows for high in highs]
    first, second = (steps, bounds) if axis.name in ("height", "width") else (bounds, steps)
    for left in (*first, *second, *both):
        if not any(_admits(left, size) for size in bad):
            return left, _lost(axis, left)
    return Axis(axis.name, example, example), f"{axis.name} other than {example}"


def _admits(axis: Axis, size: int) -> bool:
    return axis.minimum <= size and (axis.maximum is None or size <= axis.maximum) and size % axis.multiple == 0


def _lost(axis: Axis, left: Axis) -> str:
    noun = f"{axis.name}s" if axis.name == "sequence" else axis.name
    words = []
    if left.minimum == left.maximum:
        return f"{noun} other than {left.minimum}"
    if left.multiple != axis.multiple:
        return f"{noun} that is no multiple of {left.multiple}"
    if left.maximum != axis.maximum:
        words.append(f"longer than {left.maximum}")
    if left.minimum != axis.minimum:
        words.append(f"shorter than {left.minimum}")
    return f"{noun} {' or '.join(words)}"


def with_axis(plan: TracePlan, axis: Axis) -> TracePlan:
    """The plan with one axis narrowed."""
    return _Fix("", {axis.name: axis}).applied(plan)


def _fixes(plan: TracePlan, tried: Sequence[Trial], retried: bool) -> Iterator[_Fix]:
    lengths = [name for name, dimension in plan.dimensions.items() if name != "batch" and not dimension.fixed]
    images = [name for name in lengths if name in ("height", "width")]
    if images and not retried:
        # A trace that kept one size of an image is right at others by chance alone: what is near them tells nothing.
        yield from _images_fixed(plan, images, lengths)
        return
    for name in lengths:
        axis, example = plan.dimensions[name].axis, plan.dimensions[name].example
        sizes = sorted({trial.shape[name] for trial in tried})
        noun = f"{name}s" if name == "sequence" else name
        for size in sorted((size for size in sizes if size >= example), reverse=True):
            yield _Fix(f"{noun} longer than {size}", {name: dataclasses.replace(axis, maximum=size)})
        for size in (size for size in sizes if axis.minimum < size <= example):
            yield _Fix(f"{noun} shorter than {size}", {name: dataclasses.replace(axis, minimum=size)})
        for step in (step for step in _STEPS if retried and example % step == 0 and step > axis.multiple):
            left = _stepped(axis, step)
            only = f"other than {left.minimum}" if left.minimum == left.maximum else f"that is no multiple of {step}"
            yield _Fix(f"{name} {only}", {name: left})
    yield _Fix("padding", unpadded=True)
    words = ", ".join(f"{name} {plan.example[name]}" for name in lengths)
    if lengths and retried:
        yield _fixed(plan, lengths, f"sizes other than {words}")
    yield _fixed(plan, ["batch"], f"batches other than {plan.example['batch']}")
    if lengths:
        yield _fixed(plan, lengths, f"sizes other than {words}")
        yield _fixed(plan, lengths, f"padding, and sizes other than {words}", unpadded=True)
    yield _fixed(plan, ["batch", *lengths], f"shapes other than {plan.example_words}")
    yield _fixed(plan, ["batch", *lengths], f"padding, and shapes other than {plan.example_words}", unpadded=True)


def _images_fixed(plan: TracePlan, images: Sequence[str], lengths: Sequence[str]) -> Iterator[_Fix]:
    for names in (images, lengths, ["batch", *lengths]):
        words = "sizes other than " + ", ".join(f"{name} {plan.example[name]}" for name in names)
        yield _fixed(plan, names, words)
        yield _fixed(plan, names, f"padding, and {words}", unpadded=True)


def _stepped(axis: Axis, step: int) -> Axis:
    high = None if axis.maximum is None else axis.maximum // step * step
    return Axis(axis.name, -(-axis.minimum // step) * step, high, step)


def _fixed(plan: TracePlan, names: Sequence[str], words: str, unpadded: bool = False) -> _Fix:
    sizes = {name: plan.example[name] for name in names}
    return _Fix(words, {name: Axis(name, size, size) for name, size in sizes.items()}, unpadded)
