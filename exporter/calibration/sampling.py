"""Turn the entries of a calibration file into inputs of the model, and hold some out to measure accuracy on.

Every fifth sample is held out: nothing is fitted to it. If there are very many, evenly spread ones are taken. Samples
that the model does not admit are refused, with the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.calibration.dataset import CalibrationFile, Entry
from exporter.loading.loader import TokenizerPart
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import TracePlan
from runtime.commands.tensor_file import to_tensor
from runtime.errors import CalibrationError, InputError
from runtime.format.manifest import TensorSpec
from runtime.input_validation import arrange
from runtime.text import TextEncoder

HELD_OUT_EVERY = 5
# More samples do not change a model's ranges, and take minutes.
MOST = 320
# Not a seed of the cases that are verified: those must not be what the ranges were fitted to.
_SEED = 1000
_SHORT_ROWS = 8

Sample = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Calibration:
    """Batches of inputs by name: `samples` to fit ranges to, `held_out` to measure on; `summary` is for people."""

    samples: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    summary: str


def fit_calibration(file: CalibrationFile, plan: TracePlan, tokenizer: TokenizerPart) -> Calibration:
    """The samples as inputs of the model, split in two.

    Raises:
        CalibrationError: a sample that the model does not admit, or texts for a model without a tokenizer.
    """
    total = len(file.entries)
    kept = min(total, MOST)
    spread = [file.entries[index * total // kept] for index in range(kept)]
    encoder = None
    if tokenizer.content is not None and tokenizer.info is not None:
        encoder = TextEncoder(tokenizer.content, tokenizer.info, [spec.name for spec in plan.inputs])
    inputs = [_inputs(file.path, entry, plan.inputs, encoder) for entry in spread]
    fitted = [sample for index, sample in enumerate(inputs, 1) if index % HELD_OUT_EVERY]
    unseen = _unseen(plan, fitted)
    summary = f"{len(fitted)} samples of {file.path}, {kept - len(fitted)} more held out (every fifth)"
    if kept < total:
        summary += f", evenly spread over its {total}"
    if unseen:
        lengths = ", ".join(str(sample["input_ids"].shape[-1]) for sample in unseen)
        summary += f"; random ids at the lengths that no sample has: {lengths}"
    return Calibration((*fitted, *unseen), tuple(inputs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]), summary)


def _unseen(plan: TracePlan, samples: Sequence[Sample]) -> list[Sample]:
    """Random ids at lengths that no sample has: powers of two times the least one, and from the longest one on.

    The ranges must cover these lengths too. Attention averages over a text, so its output is larger for shorter texts;
    and positions that no sample reaches have embeddings of their own. docs/decisions/int8.md has the errors without
    this.
    """
    dimension = plan.dimensions.get("sequence")
    if dimension is None or dimension.fixed or "input_ids" not in samples[0]:
        return []
    seen = [sample["input_ids"].shape[-1] for sample in samples]
    lengths, length, longest = [], dimension.at("least"), dimension.at("longest")
    while length < min(seen):
        lengths.append(length)
        length *= 2
    length = max(seen)
    while length < longest:
        length = min(2 * length, longest)
        lengths.append(length)
    batch = plan.dimensions["batch"]
    found: list[Sample] = []
    for length in lengths:
        # Short rows are cheap, and each shows little.
        rows = batch.within(_SHORT_ROWS if length < min(seen) else 1)
        shape = plan.example | {"batch": rows, "sequence": dimension.within(length)}
        found.append(make_inputs(plan, shape, seed=_SEED + len(found)).as_dict())
    return found


def _inputs(path: str, entry: Entry, specs: Sequence[TensorSpec], encoder: TextEncoder | None) -> Sample:
    try:
        if isinstance(entry.value, str):
            if encoder is None:
                raise CalibrationError(
                    f"{path}, {entry.place} is a text, and the model has no tokenizer",
                    "inputs by name: .jsonl or .safetensors",
                )
            tensors: dict[str, Any] = encoder.encode([entry.value])
        else:
            tensors = {name: _tensor(name, value, specs) for name, value in entry.value.items()}
        arranged = arrange(specs, tensors)
    except InputError as error:
        found = error.found.removeprefix("text 1 ")
        raise CalibrationError(
            f"{path}, {entry.place}{':' if found == error.found else ''} {found}",
            error.expected,
            "correct it or leave it out",
        ) from error
    sample = {spec.name: tensor for spec, tensor in zip(specs, arranged, strict=True)}
    for name, tensor in sample.items():
        if not tensor.isfinite().all():
            raise CalibrationError(f"{path}, {entry.place}: {name!r} holds NaN or infinity", "finite numbers")
    return sample


def _tensor(name: str, value: Any, specs: Sequence[TensorSpec]) -> torch.Tensor:
    spec = next((spec for spec in specs if spec.name == name), None)
    tensor = value if isinstance(value, torch.Tensor) else to_tensor(name, value, spec)
    # A single sample needs no batch axis.
    return tensor.unsqueeze(0) if spec is not None and tensor.dim() == len(spec.axes) - 1 else tensor
