"""How far the original model's own fp32 answers depend on rounding, and the bounds that follow.

In: the adapter around the untouched model, the plan, the reference points. Out: the artifact's `Tolerance`, and the
plan, which says so where it is not the usual one. Refuses (ModelFailedError) a model that fails with PyTorch's plain
kernels.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from exporter.config.request import ExportRequest
from exporter.config.tolerances import TOLERANCES, widened
from exporter.loading.model_errors import failing_by_name
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.reference import COMPARED, Point
from runtime.format.golden import Case, sampled
from runtime.format.manifest import Tolerance
from runtime.verification.compare import compare


def bounds(
    adapter: torch.nn.Module, plan: TracePlan, points: Sequence[Point], request: ExportRequest
) -> tuple[TracePlan, Tolerance]:
    """The plan and the tolerance: run this before any backend touches the model.

    In bf16 its own rounding outweighs all else, and what is not verified needs no bounds of its own.

    Raises:
        ModelFailedError: the model fails with PyTorch's plain kernels.
    """
    usual = TOLERANCES[request.precision, plan.task.kind]
    if request.precision != "fp32" or request.verify == "off":
        return plan, usual
    found = widened(usual, _rounding(adapter, points))
    if found == usual:
        return plan, usual
    words = (
        f"tolerance widened to max error {found.max_error:.1e}, rms {found.rms_error:.1e}: by another of PyTorch's "
        "kernels the original's own fp32 answers differ by more than an eighth of the usual one"
    )
    return dataclasses.replace(plan, choices=(*plan.choices, words)), found


def _rounding(adapter: torch.nn.Module, points: Sequence[Point]) -> Tolerance:
    """The largest errors, by the definition of the gate, of answers by PyTorch's plain kernels against oneDNN's."""
    largest, rms = 0.0, 0.0
    for point in points:
        expected = point.case.outputs
        with failing_by_name(point.name), torch.no_grad(), _plain_kernels():
            answers = adapter(**point.case.inputs)
        named = {key: value.detach().clone() for key, value in zip(expected, answers, strict=True)}
        again = sampled(Case(point.case.name, {}, named), COMPARED).outputs
        for output in expected:
            parity = compare(point.case.name, output, 1, again[output], expected[output])
            largest, rms = max(largest, parity.max_error), max(rms, parity.rms_error)
    return Tolerance(largest, rms)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without oneDNN. Some releases of torch warn of settings that are not touched here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            yield
