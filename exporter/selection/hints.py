"""Suggest what to try next: options that this export has not tried.

Only the search over candidates knows what was tried, not the place where a backend or the tracer failed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from exporter.backends.candidates import Candidate
from exporter.config.request import ExportRequest
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import ExportedModelError, ExportError, TraceError


def with_remedy(
    failures: Sequence[tuple[Candidate, ExportError]], request: ExportRequest, plan: TracePlan
) -> ExportError:
    """A copy of the first error whose remedy names what is left to try.

    Args:
        failures: of each candidate; their remedies name no command-line options.
        request: what was asked for.
        plan: of the model; says whether it has a sequence length.
    """
    error, tried = failures[0][1], [candidate for candidate, _ in failures]
    left = list(_untried(error, request, tried, plan))
    advice = f"try {', or '.join(left)}" if left else "no option is left to try: report the model"
    remedy = "; ".join(part for part in (error.remedy, "nothing was written", advice) if part)
    # A copy keeps the further attributes that its class may have.
    advised = copy.copy(error)
    ExportedModelError.__init__(advised, error.found, error.expected, remedy)
    return advised


def _untried(error: ExportError, request: ExportRequest, tried: Sequence[Candidate], plan: TracePlan) -> Iterator[str]:
    backends = {candidate.backend.name for candidate in tried}
    int8 = request.precision in ("int8", "int4")
    if "plain" not in backends and request.backend != "plain":
        yield "--fp32 --backend plain" if int8 else "--backend plain"
    if int8:
        yield "--bf16"
    elif request.precision == "bf16":
        yield "--fp32"
    if all(candidate.attention == "eager" for candidate in tried) and request.tune != "full":
        yield "--tune full, which also tries PyTorch's own attention"
    if isinstance(error, TraceError):
        if request.example_inputs != "auto":
            yield "--example-inputs auto"
        if "sequence" in plan.dimensions:
            yield "another --sequence-length"
