"""Run the model on texts for any task, in batches of similar lengths.

A text that is refused, or on which the model fails, does not affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from runtime.errors import ArtifactFailedError, ExportedModelError, InputError, InputTextError
from runtime.format.manifest import Manifest
from runtime.text.encoder import TextEncoder
from runtime.text.prompts import POOLING_MASK, pooling_mask
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

# The maximum of tokens of a batch, including padding. Larger batches are not faster on a CPU, and the scores of a whole
# vocabulary per token would fill the memory.
MAX_TOKENS = 1024

Errors = Literal["raise", "return"]
# The model's outputs for one row, without batch axis and padding.
Outputs = dict[str, torch.Tensor]
Failure = InputError | ArtifactFailedError


def positive(name: str, number: int) -> int:
    """Check that an argument is a positive integer, and return it.

    Raises:
        InputTextError: it is not.
    """
    if not isinstance(number, int) or number < 1:
        raise InputTextError(f"{name} is {number!r}", "a whole number from 1")
    return number


class Task(Protocol):
    """The steps of a task.

    Each item (a text or a pair) becomes windows of tokens. The model's outputs for each window give a partial result,
    and the partial results are combined to the item's result.
    """

    def windows(self, items: Sequence[Any]) -> list[list[Encoding] | InvalidText]:
        """Each item's windows, or why it cannot be used."""

    def window_result(self, item: Any, encoding: Encoding, outputs: Outputs) -> Any:
        """The partial result of one window."""

    def combine(self, item: Any, results: Sequence[Any]) -> Any:
        """The item's result."""


class OneWindowTask:
    """Base class of the tasks that use one window per item.

    Args:
        encoder: the artifact's encoder.
        truncate: cut texts that are too long.
        pairs: whether an item may be a tuple of two texts.
    """

    def __init__(self, encoder: TextEncoder, truncate: bool, pairs: bool = False) -> None:
        self.encoder = encoder
        self._truncate = truncate
        self._pairs = pairs

    def windows(self, items: Sequence[Any]) -> list[list[Encoding] | InvalidText]:
        """Each item's tokens as its only window, or why it cannot be used."""
        found = self.encoder.tokens(items, truncate=self._truncate)
        return [self._window(item, one) for item, one in zip(items, found, strict=True)]

    def problem(self, encoding: Encoding) -> InvalidText | None:
        """Why these tokens cannot be used; None if they can."""
        return None

    def _window(self, item: Any, found: Encoding | InvalidText) -> list[Encoding] | InvalidText:
        if isinstance(found, InvalidText):
            return found
        if isinstance(item, tuple) and not self._pairs:
            return InvalidText(f"is {item!r}"[:100], "a string")
        parts = item if isinstance(item, tuple) else (item,)
        if not all(part.strip() for part in parts) or len(found) <= self.encoder.added[len(parts) - 1]:
            return InvalidText("is empty", "at least one word")
        return self.problem(found) or [found]

    def combine(self, item: Any, results: Sequence[Any]) -> Any:
        """The result of the only window."""
        return results[0]


class TaskRunner:
    """Runs tasks on one artifact.

    Args:
        run: runs the model: takes inputs by name, returns outputs by name.
        manifest: the artifact's manifest.
        encoder: encodes texts with the artifact's tokenizer.
    """

    def __init__(self, run: Callable[..., Outputs], manifest: Manifest, encoder: TextEncoder) -> None:
        self._run = run
        self._encoder = encoder
        # The position of each output's sequence axis, not counting the batch axis; None if it has none.
        self._sequence_axes = {
            spec.name: next((i - 1 for i, axis in enumerate(spec.axes) if axis.name == "sequence"), None)
            for spec in manifest.outputs
        }
        limits = [axis.maximum for spec in manifest.inputs for axis in spec.axes if axis.name == "batch"]
        self._max_rows = min((limit for limit in limits if limit is not None), default=None)

    def run(self, task: Task, items: Sequence[Any], errors: Errors, name: str = "text", prompt: int = 0) -> list[Any]:
        """One result per item, or with `errors="return"` possibly its error.

        Args:
            task: the task to run.
            items: at least one text or pair.
            errors: `raise` the first error, which names its item, or `return` each in its item's place.
            name: what error messages call an item.
            prompt: the number of tokens at each item's beginning that the model's pooling leaves out.

        Raises:
            InputTextError: no items, or an item that does not fit.
            InputError: a token that the model does not have.
            ArtifactFailedError: the model failed.
        """
        if not isinstance(items, (list, tuple)) or not items:
            raise InputTextError(f"{name}s is {items!r}"[:200], f"a list of at least one {name}")
        if errors not in ("raise", "return"):
            raise InputTextError(f"errors is {errors!r}", "raise or return")
        failures: dict[int, ExportedModelError] = {}
        rows: list[tuple[int, Encoding]] = []
        for index, windows in enumerate(task.windows(items)):
            if isinstance(windows, InvalidText):
                if errors == "raise":
                    raise windows.error(f"{name} {index + 1}")
                failures[index] = windows.error(f"the {name}")
            else:
                rows += [(index, window) for window in windows]
        results: dict[int, Any] = {}
        for number, outputs in self._outputs([encoding for _, encoding in rows], prompt):
            index, encoding = rows[number]
            result = _window_result(task, items[index], encoding, outputs)
            if not isinstance(result, ExportedModelError):
                results[number] = result
                continue
            if errors == "raise":
                raise type(result)(f"{name} {index + 1}: {result.found}", result.expected, result.remedy)
            failures[index] = result
        by_item: list[list[Any]] = [[] for _ in items]
        for number in sorted(results):
            by_item[rows[number][0]].append(results[number])
        return [
            failures[index] if index in failures else task.combine(item, by_item[index])
            for index, item in enumerate(items)
        ]

    def _outputs(self, encodings: Sequence[Encoding], prompt: int) -> Iterator[tuple[int, Outputs | Failure]]:
        """Each encoding's number with its outputs or its error, as soon as its batch has run."""
        for batch in self._batches([self._encoder.width(encoding) for encoding in encodings]):
            yield from self._run_batch(batch, encodings, prompt)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            full = (len(batch) + 1) * lengths[index] > MAX_TOKENS or len(batch) == self._max_rows
            if batch and (full or not (self._encoder.pads or lengths[index] == lengths[batch[0]])):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _run_batch(
        self, batch: Sequence[int], encodings: Sequence[Encoding], prompt: int
    ) -> Iterator[tuple[int, Outputs | Failure]]:
        tensors = self._encoder.tensors([encodings[index] for index in batch])
        if prompt:
            tensors[POOLING_MASK] = pooling_mask(tensors["attention_mask"], prompt)
        try:
            outputs = self._run(**tensors)
        except (InputError, ArtifactFailedError) as error:
            if len(batch) == 1:
                yield batch[0], error
            else:
                # Run alone, only the text that caused the error fails.
                for index in batch:
                    yield from self._run_batch([index], encodings, prompt)
            return
        width = tensors["input_ids"].shape[1]
        for row, index in enumerate(batch):
            own = {
                name: self._without_padding(name, tensor[row], encodings[index], width)
                for name, tensor in outputs.items()
            }
            yield index, own

    def _without_padding(self, name: str, row: torch.Tensor, encoding: Encoding, width: int) -> torch.Tensor:
        axis = self._sequence_axes[name]
        if axis is None or len(encoding) == width:
            return row
        return row.narrow(axis, self._encoder.row_start(encoding, width), len(encoding))


def _window_result(task: Task, item: Any, encoding: Encoding, outputs: Outputs | Failure) -> Any:
    """A window's result, or its error: the model failed, or the tokenizer failed on the model's output."""
    if isinstance(outputs, ExportedModelError):
        return outputs
    try:
        return task.window_result(item, encoding, outputs)
    except InputTextError as error:
        return error
