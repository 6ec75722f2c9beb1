"""Find out at once whether a trace keeps the size of its example's images, as most traces of image models do.

Such a file supports one size, whatever backend computes it. Without this trial every candidate would be built and
compared with the original model at all sizes before that is known, and most of the time of an export went there.

The plain trace is run in this process, at one small size. That only excludes sizes: what is declared is verified in
fresh processes, as always.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping
from contextlib import nullcontext

import torch

from exporter.config.request import ExportRequest
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.narrowing import with_images_fixed
from exporter.shapes.test_shapes import Level, TestShape
from exporter.shapes.trace_plan import TracePlan
from exporter.tracing import patches
from exporter.tracing.adapter import Adapter
from exporter.tracing.trace import trace
from exporter.verification.reference import VerificationCase, verification_case
from runtime.errors import CheckFailedError, ModelFailedError, TraceError
from runtime.host.torchscript import FAILURES, ScriptModule, optimized_execution
from runtime.verification.compare import compare

logger = logging.getLogger("exporter")

# Sizes that are not square, and no multiples of patches, windows and strides.
_LEVELS: tuple[Level, ...] = ("short", "odd", "middle", "longest")
# A relative error far above every tolerance of fp32. A trace that keeps a size is off by more, or fails.
_WRONG = 1e-2


def with_kept_sizes(adapter: Adapter, plan: TracePlan, request: ExportRequest) -> tuple[TracePlan, list[str]]:
    """The plan, for images of the example's size alone if a trace keeps that size; and notes on what was tried.

    Args:
        adapter: of the untouched model, which stays so.
        plan: of the model.
        request: what was asked for.
    """
    fixed = with_images_fixed(plan)
    shape = None if fixed is None or request.verify == "off" else _other_size(plan)
    if fixed is None or shape is None:
        return plan, []
    try:
        case = verification_case(adapter, plan, adapter.outputs, shape, 0)
        traced = _traced(adapter, plan, request)
    # The reference says at which sizes the model fails, and each candidate's trace why there is none.
    except (ModelFailedError, TraceError):
        return plan, []
    if _is_right(traced, case):
        return plan, [f"a trace is right at {case.name} too"]
    narrowed, excluded = fixed
    note = f"excluded, because it was wrong there: {excluded}"
    logger.warning("%s", note)
    narrowed = dataclasses.replace(narrowed, choices=(*narrowed.choices, note))
    return narrowed, [f"the trace is wrong at {case.name}; {note}"]


def _other_size(plan: TracePlan) -> TestShape | None:
    """The example with images of another size, the smallest of those that are verified; None if there is no other."""
    example = (plan.example["height"], plan.example["width"])
    sizes = {(plan.dimensions["height"].at(level), plan.dimensions["width"].at(level)) for level in _LEVELS} - {example}
    if not sizes:
        return None
    height, width = min(sizes, key=lambda size: (size[0] * size[1], size))
    # The batch stays: a trace that keeps it may be right at all sizes.
    return TestShape(f"00-{height}x{width}", plan.example | {"height": height, "width": width}, None)


def _traced(adapter: Adapter, plan: TracePlan, request: ExportRequest) -> ScriptModule:
    """The plain trace of a repaired copy of the model."""
    module = copy.deepcopy(adapter)
    patches.repair(module.model)
    return trace(module, make_inputs(plan, plan.example), request.example_inputs, nullcontext()).module


def _is_right(traced: ScriptModule, case: VerificationCase) -> bool:
    expected: Mapping[str, torch.Tensor] = case.golden.outputs
    try:
        with torch.no_grad(), optimized_execution(False):
            found = traced(*case.golden.inputs.values())
        return all(
            compare("", name, 1, _sample(output, case, name), expected[name]).max_error < _WRONG
            for name, output in zip(expected, found, strict=True)
        )
    except (*FAILURES, CheckFailedError):
        return False


def _sample(output: torch.Tensor, case: VerificationCase, name: str) -> torch.Tensor:
    stride = case.golden.strides.get(name)
    return output if stride is None else output.flatten()[::stride]
