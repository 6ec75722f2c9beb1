"""Narrow what an artifact declares to what was right, where some shapes failed and the rest is sound.

In: the plan's inputs, the verified points, the names of those that failed. Out: an `Envelope`, or None where nothing
sound is left. A session refuses, by name, whatever lies outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from exporter.plan import TracePlan
from exporter.reference import Point
from runtime.manifest import Axis, TensorSpec, ValueRange


@dataclass(frozen=True)
class Envelope:
    """What is left: the narrowed inputs, the points inside, and in words what was given up."""

    inputs: tuple[TensorSpec, ...]
    points: tuple[Point, ...]
    given_up: str


def narrow(plan: TracePlan, points: Sequence[Point], failed: Collection[str]) -> Envelope | None:
    """The widest sound envelope, tried from the smallest loss to the largest.

    Sound: every point inside passed, the traced shape is inside, and so is a second point, unless both axes
    are fixed.
    """
    lengths = sorted({point.shape["sequence"] for point in points}, reverse=True)
    longest = [
        (f"sequences longer than {length}", _Fix(longest=length)) for length in lengths if length >= plan.sequence
    ]
    attempts = [
        *longest,
        ("padding", _Fix(unpadded=True)),
        (f"batches other than {plan.batch}", _Fix(batch=plan.batch)),
        (f"sequences other than {plan.sequence}", _Fix(sequence=plan.sequence)),
        (f"shapes other than {plan.batch}x{plan.sequence}", _Fix(batch=plan.batch, sequence=plan.sequence)),
        (
            f"padding, and shapes other than {plan.batch}x{plan.sequence}",
            _Fix(batch=plan.batch, sequence=plan.sequence, unpadded=True),
        ),
    ]
    for words, fix in attempts:
        inside = [point for point in points if fix.admits(point)]
        traced = any(point.shape == {"batch": plan.batch, "sequence": plan.sequence} for point in inside)
        enough = len(inside) >= 2 or (fix.batch is not None and fix.sequence is not None)
        if traced and enough and len(inside) < len(points) and not any(point.case.name in failed for point in inside):
            return Envelope(tuple(fix.applied(spec) for spec in plan.inputs), tuple(inside), words)
    return None


@dataclass(frozen=True)
class _Fix:
    """One way to narrow."""

    batch: int | None = None
    sequence: int | None = None
    longest: int | None = None
    unpadded: bool = False

    def admits(self, point: Point) -> bool:
        """Whether the point lies inside."""
        batch, sequence = point.shape["batch"], point.shape["sequence"]
        return (
            self.batch in (None, batch)
            and self.sequence in (None, sequence)
            and (self.longest is None or sequence <= self.longest)
            and not (self.unpadded and point.padded)
        )

    def applied(self, spec: TensorSpec) -> TensorSpec:
        """The input with narrowed axes and values."""
        limits: dict[str, Callable[[Axis], Axis]] = {
            "batch": lambda axis: _fixed(axis, self.batch),
            "sequence": lambda axis: _capped(_fixed(axis, self.sequence), self.longest),
        }
        axes = tuple(limits[axis.name](axis) if axis.name in limits else axis for axis in spec.axes)
        values = ValueRange(1, 1) if self.unpadded and spec.name == "attention_mask" else spec.values
        return dataclasses.replace(spec, axes=axes, values=values)


def _fixed(axis: Axis, size: int | None) -> Axis:
    return axis if size is None else Axis(axis.name, size, size)


def _capped(axis: Axis, size: int | None) -> Axis:
    return axis if size is None else Axis(axis.name, axis.minimum, size)
