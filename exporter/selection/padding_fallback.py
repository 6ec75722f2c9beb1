"""Skip padding if a model and a backend allow it, and fall back to computing it if that was wrong.

Models whose rows are padded on the left, or not padded at all, compute their padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from exporter.backends.base import PaddingDropper
from exporter.backends.candidates import Candidate
from exporter.selection.build_result import BuildResult
from exporter.shapes.example_inputs import ExampleInputs
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.reference import VerificationCase
from runtime.format.manifest import Precision
from runtime.host.torchscript import ScriptModule


def drop_padding(
    candidate: Candidate, plan: TracePlan, module: ScriptModule, example: ExampleInputs, precision: Precision
) -> tuple[Candidate, list[str]]:
    """Rewrite the trace so that it skips padding.

    Returns:
        The candidate, its `drop_padding` saying whether that was possible; and notes on what was done.
    """
    padded_right = plan.padded_axis == "sequence" and plan.padding_side == "right"
    if not candidate.drop_padding or not padded_right or not isinstance(candidate.backend, PaddingDropper):
        return dataclasses.replace(candidate, drop_padding=False), []
    mask = example.tensors.get("attention_mask")
    attentions, notes = (
        candidate.backend.drop_padding(module, example, precision) if mask is not None and mask.dim() == 2 else (0, [])
    )
    return dataclasses.replace(candidate, drop_padding=attentions > 0), notes


def expected_cases(candidate: Candidate, cases: Sequence[VerificationCase]) -> list[VerificationCase]:
    """The cases, with the outputs that the candidate gives at padded positions."""
    return [case.without_padding if candidate.drop_padding else case for case in cases]


def with_padding_kept(
    found: Iterator[BuildResult], build: Callable[[Candidate], BuildResult | None]
) -> Iterator[BuildResult]:
    """After each candidate that skips padding, the same one with padding computed.

    The caller asks for the next candidate only if the one before has failed.
    """
    for built in found:
        yield built
        if built.candidate.drop_padding:
            kept = build(dataclasses.replace(built.candidate, reason="with padding", drop_padding=False))
            if kept is not None:
                # The timings are those of the file that skipped padding.
                times = tuple(dataclasses.replace(one, chosen=False) for one in built.manifest.timings)
                yield dataclasses.replace(kept, manifest=dataclasses.replace(kept.manifest, timings=times))
