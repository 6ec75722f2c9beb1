"""The shapes to verify: sizes along every axis, and the lengths of padded rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from exporter.config.forward_parameters import TRIES
from runtime.format.manifest import Axis, Verification

# Axes whose largest sizes may be verified once: those along which time and memory grow without bound.
LONG = ("sequence", "samples", "frames")

Level = Literal["least", "short", "odd", "middle", "example", "longest", "limit"]


@dataclass(frozen=True)
class Dimension:
    """One axis of the inputs: its supported range, and the traced example's size along it."""

    axis: Axis
    example: int

    def at(self, level: Level) -> int:
        """The size to try at a level, inside the supported range."""
        tries = TRIES.get(self.axis.name)
        if level == "least":
            return self.within(self.axis.minimum)
        if level == "example" or tries is None or (level == "limit" and tries.relative):
            return self.example
        if level == "limit" or (level == "longest" and not tries.relative):
            most = tries.longest if level == "longest" else None
            return self.within(most or self.axis.maximum or tries.longest or self.example)
        size = getattr(tries, level)
        size = self.example * size // 100 if tries.relative else size
        return self.within(size)

    def within(self, size: int) -> int:
        """The nearest size in the supported range."""
        step = self.axis.multiple
        low, high = -(-self.axis.minimum // step) * step, self.axis.maximum
        size = max(low, size // step * step)
        return size if high is None else min(size, high // step * step)

    def between(self, share: float) -> int:
        """An odd size at a fraction of the range, whose upper end is twice the example's size if it has none."""
        tries = TRIES.get(self.axis.name)
        high = self.axis.maximum or 2 * self.example
        if tries is not None and tries.longest is not None and not tries.relative:
            high = min(high, tries.longest)
        return self.within(int(self.axis.minimum + share * (high - self.axis.minimum)) | 1)

    @property
    def beyond(self) -> bool:
        """Whether larger sizes are admitted than those that are verified in every order."""
        return self.axis.name in LONG and self.at("limit") > self.at("longest")

    @property
    def fixed(self) -> bool:
        """Whether a single size is admitted."""
        return self.axis.minimum == self.axis.maximum


@dataclass(frozen=True)
class TestShape:
    """One shape: the size of each axis by name; `lengths` are the rows' real lengths if some are padded.

    `once`: it is so large that it is called once, in one order, and not stored.
    """

    name: str
    shape: Mapping[str, int]
    lengths: tuple[int, ...] | None
    once: bool = False

    @property
    def padded(self) -> bool:
        """Whether its rows have different lengths."""
        return self.lengths is not None


def shapes_to_verify(
    dimensions: Mapping[str, Dimension],
    padded_axis: str | None,
    mode: Verification,
    images: Sequence[tuple[int, int]] = (),
) -> list[TestShape]:
    """The shapes for a verification mode, without duplicates; the small ones that are stored come first.

    Args:
        dimensions: by axis name; `batch` among them.
        padded_axis: the axis along which a mask allows shorter rows; None if there is none.
        mode: `full` has more, `off` only those that are stored for consumers to check with.
        images: further heights and widths to try, where they are supported.
    """
    rows: list[tuple[int, Level, Sequence[float] | None]] = [
        (1, "short", None),
        (3, "odd", (1, 0.5, 0)),
        (0, "example", None),
        (0, "example", (1, 0.34)),
        (5, "middle", (1, 0, 0.5, 1, 0.25)),
        (1, "longest", None),
        (2, "least", None),
    ]
    if "height" in dimensions:
        # Most images have the one size that the image processor makes, so an image alone is tried with it too. The
        # largest batch is of small images: a batch of photos takes as long as all other shapes.
        rows = [
            *((1, "short", None), (3, "odd", (1, 0.5, 0)), (0, "example", None), (1, "example", None)),
            *((0, "example", (1, 0.34)), (5, "short", (1, 0, 0.5, 1, 0.25)), (1, "middle", None)),
            *((1, "longest", None), (2, "least", None)),
        ]
    if mode == "off":
        rows = rows[:2]
    if mode == "full":
        levels: tuple[Level, ...] = ("short", "middle", "example", "longest")
        for batch, level in product((1, 0, 5), levels):
            rows.append((batch, level, None))
            if batch != 1:
                rows.append((batch, level, (1, *(index / 6 for index in range(1, batch or 2)))))
        rows.append((2, "least", None))
    shapes = [(_at(dimensions, batch, level), shares, False) for batch, level, shares in rows]
    for height, width in images if mode != "off" else ():
        shape = _at(dimensions, 1, "example") | {"height": height, "width": width}
        if all(dimensions[name].within(shape[name]) == shape[name] for name in ("height", "width")):
            shapes.append((shape, None, False))
    if mode != "off" and any(dimension.beyond for dimension in dimensions.values()):
        shapes.append((_at(dimensions, 1, "limit"), None, True))
    found: dict[tuple[tuple[int, ...], tuple[int, ...] | None], TestShape] = {}
    for shape, shares, once in shapes:
        lengths = _lengths(dimensions[padded_axis], shape, shares) if padded_axis is not None and shares else None
        key = (tuple(shape.values()), lengths)
        if key not in found:
            # The number in front keeps the order: safetensors sorts by name.
            name = f"{len(found):02}-{_label(dimensions, shape)}{'-padded' if lengths else ''}"
            found[key] = TestShape(name, shape, lengths, once)
    return list(found.values())


def _at(dimensions: Mapping[str, Dimension], batch: int, level: Level) -> dict[str, int]:
    """The shape with this batch (0: the example's) and with all other axes at this level."""
    batch = dimensions["batch"].within(batch or dimensions["batch"].example)
    return {name: batch if name == "batch" else dimension.at(level) for name, dimension in dimensions.items()}


def probe_shapes(dimensions: Mapping[str, Dimension], padded_axis: str | None, first: int) -> list[TestShape]:
    """Further shapes inside a narrowed range: a wrong trace may be correct at the sizes that happened to be tried.

    They lie between the bounds, at sizes with few divisors, with batches that were not tried. Their names are numbered
    from `first` on.
    """
    found: dict[tuple[int, ...], TestShape] = {}
    for number, (batch, share, shares) in enumerate(((3, 0.31, None), (4, 0.57, (1, 0.7, 0.2)), (7, 0.06, None))):
        shape = {
            name: dimension.within(batch if name == "batch" else dimension.between(share))
            for name, dimension in dimensions.items()
        }
        lengths = _lengths(dimensions[padded_axis], shape, shares) if padded_axis is not None and shares else None
        name = f"{first + number:02}-{_label(dimensions, shape)}{'-padded' if lengths else ''}"
        found.setdefault(tuple(shape.values()), TestShape(name, shape, lengths))
    return list(found.values())


def _lengths(axis: Dimension, shape: Mapping[str, int], shares: Sequence[float]) -> tuple[int, ...] | None:
    """The rows' lengths: `shares` of the axis, the last share repeated; None if no row would be shorter."""
    size, batch = shape[axis.axis.name], shape["batch"]
    parts = [*shares, *([shares[-1]] * batch)][:batch]
    least = min(axis.axis.minimum, size)
    if axis.fixed:
        # Rows may be shorter: texts of any length; of images, no part of a picture is less than half of the largest.
        least = size // 2 if axis.axis.name == "width" else 1
    # Rounded down, not to a supported size: rows may be shorter than a multiple.
    lengths = tuple(max(least, int(size * part)) for part in parts)
    return lengths if min(lengths) < size else None


def _label(dimensions: Mapping[str, Dimension], shape: Mapping[str, int]) -> str:
    """The batch and the sizes that vary, for instance `2x128`."""
    return "x".join(str(size) for name, size in shape.items() if name == "batch" or not dimensions[name].fixed)
