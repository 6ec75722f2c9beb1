"""How far a system's outputs are from those of eager fp32, sample by sample, and how far they may be. Needs numpy.

`rms_error` is that of `benchmarks.harness.check`. `worst` is the distance of the worst sample's row of logits, relative
to the root mean square of the expected rows' lengths: it reveals an answer that was given to another query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from benchmarks.harness.check import BOUNDS, errors


def judge(answers: Sequence[Any], expected: Sequence[Any]) -> dict[str, float]:
    """The errors over all samples, each [1, labels]; infinite where a shape differs or a number is not finite."""
    whole = errors(answers, expected)
    if not numpy.isfinite(whole["rms_error"]):
        return {"rms_error": whole["rms_error"], "worst": whole["rms_error"]}
    right = numpy.concatenate(expected)
    distances = numpy.linalg.norm(numpy.concatenate(answers) - right, axis=-1)
    scale = numpy.sqrt((numpy.linalg.norm(right, axis=-1) ** 2).mean())
    return {"rms_error": whole["rms_error"], "worst": float(distances.max() / scale)}


def is_right(found: dict[str, float], precision: str) -> bool:
    """Whether every single answer is good enough for its system to be timed."""
    return found["worst"] <= BOUNDS[precision]
