"""Measure how much rounding changes the original model's own fp32 outputs, and widen the tolerance if it must be.

Some models amplify rounding errors. The outputs of two of PyTorch's own kernels are compared;
`exporter.config.tolerances` says how the tolerance follows.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from exporter.config.request import ExportRequest
from exporter.config.tolerances import WIDEST, usual_tolerance, widened
from exporter.loading.model_errors import named_model_errors
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.reference import COMPARED, VerificationCase
from runtime.format.golden import Case, sampled
from runtime.format.manifest import Tolerance
from runtime.verification.compare import compare


def bounds(
    adapter: torch.nn.Module, plan: TracePlan, cases: Sequence[VerificationCase], request: ExportRequest
) -> tuple[TracePlan, Tolerance]:
    """The tolerance, and the plan, which notes a widened one. Run this before any backend changes the model.

    Only fp32 is measured: in bf16 and int8 the rounding of the precision itself is much larger.

    Raises:
        ModelFailedError: the model fails with PyTorch's plain kernels.
    """
    usual = usual_tolerance(request.precision, plan.task.kind, plan.task.generates)
    if request.precision != "fp32" or request.verify == "off":
        return plan, usual
    found = widened(usual, _rounding(adapter, _worth_measuring(plan, cases), usual))
    if found == usual:
        return plan, usual
    note = (
        f"tolerance widened to max error {found.max_error:.1e}, rms {found.rms_error:.1e}: the original model's own "
        "fp32 outputs differ by more than an eighth of the usual tolerance between two of PyTorch's kernels"
    )
    return dataclasses.replace(plan, choices=(*plan.choices, note)), found


def _rounding(adapter: torch.nn.Module, cases: Sequence[VerificationCase], usual: Tolerance) -> Tolerance:
    """The largest errors of outputs by PyTorch's plain kernels against those by oneDNN.

    Of images, further sizes are left out where ten times the errors so far would not change the `usual` tolerance, or
    where it is the widest already.
    """
    largest, rms = 0.0, 0.0
    for number, case in enumerate(cases):
        likely = widened(usual, Tolerance(10 * largest, 10 * rms))
        if number and "height" in case.shape and (likely == usual or widened(usual, Tolerance(largest, rms)) == WIDEST):
            break
        expected = case.golden.outputs
        with named_model_errors(case.name), torch.no_grad(), _plain_kernels():
            outputs = adapter(**case.golden.inputs)
        named = {key: value.detach().clone() for key, value in zip(expected, outputs, strict=True)}
        again = sampled(Case(case.golden.name, {}, named), COMPARED).outputs
        for output in expected:
            comparison = compare(case.golden.name, output, 1, again[output], expected[output])
            largest, rms = max(largest, comparison.max_error), max(rms, comparison.rms_error)
    return Tolerance(largest, rms)


def _worth_measuring(plan: TracePlan, cases: Sequence[VerificationCase]) -> list[VerificationCase]:
    """Those of which rounding has to be measured: PyTorch's plain kernels are slow for images.

    The longest are left out, since their rounding is that of the others. Of images of one size it is the same in all
    rows, so the smallest batch is enough; and of all sizes the smallest, the traced one and the largest.
    """
    left = [case for case in cases if not case.once]
    if not {"height", "width"} <= plan.dimensions.keys():
        return left
    by_size: dict[tuple[int, int], VerificationCase] = {}
    for case in sorted(left, key=lambda case: case.shape["batch"]):
        by_size.setdefault((case.shape["height"], case.shape["width"]), case)
    ordered = sorted(by_size, key=lambda size: size[0] * size[1])
    chosen = {ordered[0], (plan.example["height"], plan.example["width"]), ordered[-1]}
    return [by_size[size] for size in ordered if size in chosen]


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without oneDNN. Some releases of torch warn about settings that are not changed here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            yield
