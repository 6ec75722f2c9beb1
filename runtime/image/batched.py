"""Run the model on pictures: those of which inputs of the same shape are made, in one batch.

Pictures of other shapes are not padded to a common one: a picture's result would depend on its neighbours. A picture
that is refused, or on which the model fails, does not affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch

from runtime.errors import ArtifactFailedError, ExportedModelError, InputError, InputTypeError
from runtime.format.manifest import Manifest
from runtime.image.pictures import pixels
from runtime.preprocessing import expect
from runtime.printing import shown

# Numbers of inputs in one batch: eight pictures of 224x224. Larger batches are not faster on a CPU.
MAX_NUMBERS = 8 * 3 * 224 * 224
# Numbers of inputs that wait for more of their shape.
MAX_WAITING = 2**24

Errors = Literal["raise", "return"]
# The model's outputs for one picture, without batch axis.
Outputs = dict[str, torch.Tensor]
Inputs = dict[str, torch.Tensor]
# From the height and width of a picture, and the outputs, to its result.
Result = Callable[[tuple[int, int], Outputs], Any]
# From the number of a picture, and its height and width, to further inputs of its row.
Further = Callable[[int, tuple[int, int]], Inputs]


def _nothing(_index: int, _size: tuple[int, int]) -> Inputs:
    """No further inputs."""
    return {}


class PictureRunner:
    """Runs one artifact on pictures.

    Args:
        run: runs the model: takes inputs by name, returns outputs by name.
        preprocess: makes the inputs of one picture, an array of pixels.
        manifest: the artifact's.
    """

    def __init__(self, run: Callable[..., Outputs], preprocess: Callable[[Any], Inputs], manifest: Manifest) -> None:
        self._run = run
        self._preprocess = preprocess
        self._rules = expect(manifest, "image")
        limits = [axis.maximum for spec in manifest.inputs for axis in spec.axes if axis.name == "batch"]
        self._max_rows = min((limit for limit in limits if limit is not None), default=None)

    def run(
        self, pictures: Sequence[Any], result: Result, errors: Errors, further: Further = _nothing, batch: bool = True
    ) -> list[Any]:
        """One result per picture, or with `errors="return"` possibly its error; without `batch`, one row per call.

        Raises:
            InputTypeError: no pictures, or no list of them.
            InputError, ArtifactFailedError: the first picture's error, which names it.
            ExtraMissingError: a file is given, and Pillow is not installed.
        """
        if not isinstance(pictures, (list, tuple)) or not pictures:
            raise InputTypeError(f"pictures is {shown(pictures)}"[:200], "a list of at least one picture")
        if errors not in ("raise", "return"):
            raise InputTypeError(f"errors is {errors!r}", "raise or return")
        results: dict[int, Any] = {}
        for index, found in self._outputs(pictures, further, MAX_NUMBERS if batch else 0):
            if isinstance(found, ExportedModelError) and errors == "raise":
                raise type(found)(f"picture {index + 1}: {found.found}", found.expected, found.remedy)
            results[index] = found if isinstance(found, ExportedModelError) else result(*found)
        return [results[index] for index in range(len(pictures))]

    def _outputs(
        self, pictures: Sequence[Any], further: Further, most: int
    ) -> Iterator[tuple[int, tuple[tuple[int, int], Outputs] | ExportedModelError]]:
        """Each picture's number, with its size and outputs or its error, as soon as its batch has run."""
        waiting: dict[tuple[tuple[int, ...], ...], list[tuple[int, tuple[int, int], Inputs]]] = {}
        numbers = 0
        for index, given in enumerate(pictures):
            try:
                picture = pixels(self._rules, given)
                inputs = self._preprocess(picture)
                height_and_width = (int(picture.shape[0]), int(picture.shape[1]))
                inputs |= further(index, height_and_width)
            except (InputError, ArtifactFailedError) as error:
                yield index, error
                continue
            rows = waiting.setdefault(tuple(tuple(tensor.shape) for tensor in inputs.values()), [])
            rows.append((index, height_and_width, inputs))
            size = sum(tensor.numel() for tensor in inputs.values())
            numbers += size
            if (len(rows) + 1) * size > most or len(rows) == self._max_rows:
                numbers -= len(rows) * size
                yield from self._batch(rows)
                rows.clear()
            if numbers > MAX_WAITING:
                for rows in waiting.values():
                    yield from self._batch(rows)
                waiting, numbers = {}, 0
        for rows in waiting.values():
            yield from self._batch(rows)

    def _batch(
        self, rows: Sequence[tuple[int, tuple[int, int], Inputs]]
    ) -> Iterator[tuple[int, tuple[tuple[int, int], Outputs] | ExportedModelError]]:
        if not rows:
            return
        try:
            outputs = self._run(**{name: torch.cat([inputs[name] for _, _, inputs in rows]) for name in rows[0][2]})
        except (InputError, ArtifactFailedError) as error:
            if len(rows) == 1:
                yield rows[0][0], error
                return
            # Run alone, only the picture that caused the error fails.
            for row in rows:
                yield from self._batch([row])
            return
        for place, (index, size, _) in enumerate(rows):
            yield index, (size, {name: tensor[place] for name, tensor in outputs.items()})
