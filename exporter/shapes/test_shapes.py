"""The shapes to try: sizes along every axis, and the lengths of padded rows.

In: the axes of the inputs with their sizes, the name of the padded axis. Out: `Trial`s. Refuses nothing: sizes are
brought inside what the axes admit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from exporter.config.forward_parameters import TRIES
from runtime.format.manifest import Axis, Verification

Level = Literal["least", "short", "odd", "middle", "example", "longest"]


@dataclass(frozen=True)
class Dimension:
    """One axis of the inputs: what is declared, and the traced example's size along it."""

    axis: Axis
    example: int

    def at(self, level: Level) -> int:
        """The size tried at a level, inside what the axis admits."""
        tries = TRIES.get(self.axis.name)
        if level == "least":
            return self.within(self.axis.minimum)
        if level == "example" or tries is None:
            return self.example
        if level == "longest" and not tries.relative:
            return self.axis.maximum or tries.longest or self.example
        size = getattr(tries, level)
        size = self.example * size // 100 if tries.relative else size
        return self.within(size)

    def within(self, size: int) -> int:
        """The nearest size that the axis admits."""
        step = self.axis.multiple
        low, high = -(-self.axis.minimum // step) * step, self.axis.maximum
        size = max(low, size // step * step)
        return size if high is None else min(size, high // step * step)

    def between(self, share: float) -> int:
        """An odd size at a share of the way from the least to the largest: twice the example's if unbounded."""
        high = self.axis.maximum or 2 * self.example
        return self.within(int(self.axis.minimum + share * (high - self.axis.minimum)) | 1)

    @property
    def fixed(self) -> bool:
        """Whether a single size is admitted."""
        return self.axis.minimum == self.axis.maximum


@dataclass(frozen=True)
class Trial:
    """One shape: the size of each axis by name; `lengths` are the rows' real lengths where some are padded."""

    name: str
    shape: Mapping[str, int]
    lengths: tuple[int, ...] | None

    @property
    def padded(self) -> bool:
        """Whether rows of several lengths are tried."""
        return self.lengths is not None


def trials(dimensions: Mapping[str, Dimension], padded_axis: str | None, mode: Verification) -> list[Trial]:
    """The shapes for a verification mode, the smallest golden ones first; each once.

    Args:
        dimensions: by axis name; `batch` among them.
        padded_axis: along which a mask allows shorter rows; None where nothing does.
        mode: `full` tries more, `off` makes only what a consumer needs to check itself.
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
        # Images mostly have the one size that the processor makes: it is tried with other batches too.
        rows[3:3] = [(1, "example", None), (3, "example", None)]
    if mode == "off":
        rows = rows[:2]
    if mode == "full":
        levels: tuple[Level, ...] = ("short", "middle", "example", "longest")
        for batch, level in product((1, 0, 5), levels):
            rows.append((batch, level, None))
            if batch != 1:
                rows.append((batch, level, (1, *(index / 6 for index in range(1, batch or 2)))))
        rows.append((2, "least", None))
    found: dict[tuple[tuple[int, ...], tuple[int, ...] | None], Trial] = {}
    for batch, level, shares in rows:
        batch = dimensions["batch"].within(batch or dimensions["batch"].example)
        shape = {name: batch if name == "batch" else dimension.at(level) for name, dimension in dimensions.items()}
        lengths = _lengths(dimensions[padded_axis], shape, shares) if padded_axis is not None and shares else None
        key = (tuple(shape.values()), lengths)
        if key not in found:
            # Digits in front keep the order: safetensors sorts by name.
            name = f"{len(found):02}-{_words(dimensions, shape)}{'-padded' if lengths else ''}"
            found[key] = Trial(name, shape, lengths)
    return list(found.values())


def probes(dimensions: Mapping[str, Dimension], padded_axis: str | None, first: int) -> list[Trial]:
    """Further shapes inside a narrowed range: what a trace has kept may hold at those sizes that happened to be tried.

    Between the bounds, at sizes that few steps divide, with batches that were not tried. Their names are numbered
    from `first` on.
    """
    found: dict[tuple[int, ...], Trial] = {}
    for number, (batch, share, shares) in enumerate(((3, 0.31, None), (4, 0.57, (1, 0.7, 0.2)), (7, 0.06, None))):
        shape = {
            name: dimension.within(batch if name == "batch" else dimension.between(share))
            for name, dimension in dimensions.items()
        }
        lengths = _lengths(dimensions[padded_axis], shape, shares) if padded_axis is not None and shares else None
        name = f"{first + number:02}-{_words(dimensions, shape)}{'-padded' if lengths else ''}"
        found.setdefault(tuple(shape.values()), Trial(name, shape, lengths))
    return list(found.values())


def _lengths(axis: Dimension, shape: Mapping[str, int], shares: Sequence[float]) -> tuple[int, ...] | None:
    """The rows' lengths: `shares` of the whole, the last share repeated; None where all would be whole."""
    size, batch = shape[axis.axis.name], shape["batch"]
    parts = [*shares, *([shares[-1]] * batch)][:batch]
    least = min(axis.axis.minimum, size)
    # The floor, and not the nearest size: a fixed or stepped axis may hold shorter rows all the same.
    lengths = tuple(max(least if not axis.fixed else 1, int(size * part)) for part in parts)
    return lengths if min(lengths) < size else None


def _words(dimensions: Mapping[str, Dimension], shape: Mapping[str, int]) -> str:
    """Batch and whatever varies, for instance `2x128`."""
    return "x".join(str(size) for name, size in shape.items() if name == "batch" or not dimensions[name].fixed)
