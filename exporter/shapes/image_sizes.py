"""Which sizes of images to trace, verify and declare, and whether a finished file supports what the processor makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.config.request import ExportRequest
from exporter.loading.image_sizes import Size, listed
from exporter.loading.loader import Source
from exporter.shapes.architecture_overrides import configured_image
from runtime.errors import RequestError
from runtime.format.manifest import Axis, TensorSpec

# The image size for models that do not say theirs: the one that most image models are trained with.
_DEFAULT: Size = (224, 224)


@dataclass(frozen=True)
class ImageSizes:
    """`verified` sizes, that of the traced example first, and the largest side if the user asked for one."""

    verified: tuple[Size, ...]
    largest: int | None

    @property
    def example(self) -> Size:
        """Of the traced example."""
        return self.verified[0]

    def bounds(self, axis: str, least: int) -> tuple[int, int]:
        """The smallest and largest size of an axis: from half of the example's to half more, and all `verified` ones.

        `least` is the smallest that the architecture admits.
        """
        sizes = [size[axis == "width"] for size in self.verified]
        low = max(least, min(sizes[0] // 2, *sizes))
        high = self.largest if self.largest is not None else max(sizes[0] * 150 // 100, *sizes)
        return low, max(low, high)


def choose_image_sizes(source: Source, request: ExportRequest) -> ImageSizes:
    """Those asked for; else what the folder's processor makes, and the size that the model is configured for.

    Raises:
        RequestError: the largest side asked for is smaller than that of the example.
    """
    configured = configured_image(source)
    found = request.image_sizes or (*source.image_sizes, *([configured] if configured is not None else []))
    sizes = tuple(dict.fromkeys(found)) or (_DEFAULT,)
    largest = request.max_image_size
    if largest is None:
        return ImageSizes(sizes, None)
    if largest < max(sizes[0]):
        raise RequestError(
            f"max_image_size is {largest}", f"at least {max(sizes[0])}: the traced example is {listed(sizes[:1])}"
        )
    inside = [size for size in sizes if max(size) <= largest]
    return ImageSizes(tuple(dict.fromkeys((*inside, (largest, largest)))), largest)


def describe_support(sizes: Sequence[Size], origin: str, inputs: Sequence[TensorSpec]) -> tuple[str, bool]:
    """Whether a file with these inputs takes images of all sizes, in words and as a boolean."""
    axes = {axis.name: axis for spec in inputs for axis in spec.axes if axis.name in ("height", "width")}
    refused = tuple(size for size in sizes if not all(map(_admits, (axes["height"], axes["width"]), size)))
    if not refused:
        return f"the file takes images of {listed(tuple(sizes))}, {origin}", True
    supported = ", ".join(f"{axis.name} {_range(axis)}" for axis in axes.values())
    return (
        f"the file refuses images of {listed(refused)}, {origin}; it takes {supported}; "
        "make images of such a size, or export for another with --image-sizes",
        False,
    )


def _admits(axis: Axis, size: int) -> bool:
    return axis.minimum <= size <= (axis.maximum or size) and size % axis.multiple == 0


def _range(axis: Axis) -> str:
    if axis.minimum == axis.maximum:
        return str(axis.minimum)
    return f"{axis.minimum} to {axis.maximum}" + (f" in steps of {axis.multiple}" if axis.multiple > 1 else "")
