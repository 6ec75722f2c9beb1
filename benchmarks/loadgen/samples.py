"""The samples: seeded lengths and token ids, and the two padded batches. Needs numpy.

Lengths are log-normal (median 45 tokens, sigma 0.55 of the logarithm), rounded, and limited to 8 … 128: many short
texts and a few long ones, on average 40 % of the maximum. A sample is one row of its own length, without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from benchmarks.harness.inputs import text_inputs
from benchmarks.harness.places import INPUTS

COUNT, LONGEST, SHORTEST = 256, 128, 8
MEDIAN, SIGMA, SEED = 45.0, 0.55, 17
# Padded to the longest, more than half of this batch is padding.
RAGGED = (128, 20, 35, 50, 64, 12, 90, 40)

SAMPLES = INPUTS / "loadgen-samples.npz"
RAGGED_BATCH = INPUTS / "loadgen-ragged.npz"


def lengths(count: int = COUNT, seed: int = SEED) -> Any:
    """Tokens of each sample, special tokens included."""
    drawn = numpy.random.default_rng(seed).lognormal(numpy.log(MEDIAN), SIGMA, count)
    return numpy.clip(numpy.round(drawn), SHORTEST, LONGEST).astype(int)


def samples() -> list[dict[str, Any]]:
    """Each sample's inputs: int64 [1, its length]."""
    generator = numpy.random.default_rng([SEED, 1])
    return [text_inputs(generator.integers(1000, 30000, (1, length - 2))) for length in lengths()]


def ragged() -> dict[str, Any]:
    """One batch of `RAGGED` lengths: int64 [8, 128], zeros where the mask is 0."""
    generator = numpy.random.default_rng([SEED, 2])
    rows = [text_inputs(generator.integers(1000, 30000, (1, length - 2))) for length in RAGGED]
    return padded(rows, range(len(rows)))


def padded(rows: Sequence[dict[str, Any]], numbers: Sequence[int], multiple: int = 1) -> dict[str, Any]:
    """The rows of these numbers as one batch, as long as the longest of them, rounded up to a multiple."""
    longest = max(rows[number]["input_ids"].shape[1] for number in numbers)
    shape = len(numbers), -(-longest // multiple) * multiple
    if shape == (1, longest):
        return rows[numbers[0]]
    batch = {}
    for name in rows[numbers[0]]:
        array = numpy.zeros(shape, dtype=numpy.int64)
        for place, number in enumerate(numbers):
            row = rows[number][name]
            array[place, : row.shape[1]] = row[0]
        batch[name] = array
    return batch


def load(path: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """The inputs and the answers of a file of samples, in order."""
    with numpy.load(path) as arrays:
        cases: dict[int, dict[str, Any]] = {}
        for key in arrays.files:
            number, _, name = key.partition("/")
            cases.setdefault(int(number), {})[name] = arrays[key]
    found = [cases[number] for number in sorted(cases)]
    return found, [case.pop("answer") for case in found]
