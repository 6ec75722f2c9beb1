"""What to try next: options that this export has not tried already.

In: a request, the candidates with their errors. Out: the first error with a remedy that follows from them. What an
export tried is known only here, not where a backend or the tracer fails.
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
    """The first error, of the same class, with what is left to try.

    Args:
        failures: of each candidate that failed; no option of the command line in its remedy.
        request: what was asked for.
        plan: that of the model; it says whether texts have a length.
    """
    error, tried = failures[0][1], [way for way, _ in failures]
    left = list(_untried(error, request, tried, plan))
    advice = f"try {', or '.join(left)}" if left else "no option is left to try: report the model"
    remedy = "; ".join(part for part in (error.remedy, "nothing was written", advice) if part)
    # A copy, which keeps what else its class holds.
    advised = copy.copy(error)
    ExportedModelError.__init__(advised, error.found, error.expected, remedy)
    return advised


def _untried(error: ExportError, request: ExportRequest, tried: Sequence[Candidate], plan: TracePlan) -> Iterator[str]:
    backends = {way.backend.name for way in tried}
    int8 = request.precision == "int8"
    if "plain" not in backends and request.backend != "plain":
        yield "--fp32 --backend plain" if int8 else "--backend plain"
    if int8:
        yield "--bf16"
    elif request.precision == "bf16":
        yield "--fp32"
    if all(way.attention == "eager" for way in tried) and request.tune != "full":
        yield "--tune full, which also tries PyTorch's own attention"
    if isinstance(error, TraceError):
        if request.example_inputs != "auto":
            yield "--example-inputs auto"
        if "sequence" in plan.dimensions:
            yield "another --sequence-length"
