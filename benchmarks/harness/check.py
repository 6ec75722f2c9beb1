"""How far a contender's outputs are from those of eager fp32, and how far they may be. Needs numpy.

`max_error` = max|y - r| / max|r| and `rms_error` = rms(y - r) / rms(r) over all cases of a row together, as in
`runtime.verification.compare`; the cosines are of rows along the last axis. A wrong shape, or a number that is not
finite, is an infinite error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy


class Errors(TypedDict):
    """Relative errors, and the mean and least cosine."""

    max_error: float
    rms_error: float
    cosine_mean: float
    cosine_least: float


# The bound on `rms_error`. A wrong answer lies far above: another input's answers give errors around 1. Wide for
# int8, because dynamic quantisation of random weights errs more than calibrated quantisation of trained ones does.
BOUNDS = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.4}

_WRONG: Errors = {"max_error": math.inf, "rms_error": math.inf, "cosine_mean": -1.0, "cosine_least": -1.0}


def errors(answers: Sequence[Any], expected: Sequence[Any]) -> Errors:
    """The errors over all cases of a row."""
    if any(numpy.shape(answer) != numpy.shape(right) for answer, right in zip(answers, expected, strict=True)):
        return _WRONG
    found = numpy.concatenate([numpy.asarray(answer, dtype=numpy.float64) for answer in answers])
    right = numpy.concatenate([numpy.asarray(answer, dtype=numpy.float64) for answer in expected])
    if not numpy.isfinite(found).all():
        return _WRONG
    difference = found - right
    lengths = numpy.linalg.norm(found, axis=-1) * numpy.linalg.norm(right, axis=-1)
    cosines = (found * right).sum(-1) / numpy.where(lengths == 0, 1.0, lengths)
    return {
        "max_error": float(abs(difference).max() / abs(right).max()),
        "rms_error": float(math.sqrt((difference**2).mean() / (right**2).mean())),
        "cosine_mean": float(cosines.mean()),
        "cosine_least": float(cosines.min()),
    }


def is_right(found: Errors, precision: str) -> bool:
    """Whether the answers are good enough to be timed.

    Too good is wrong too: int8 that errs like fp32 is fp32, and has no place among int8's times.
    """
    too_good = precision == "int8" and found["rms_error"] < BOUNDS["fp32"]
    return found["rms_error"] <= BOUNDS[precision] and not too_good
