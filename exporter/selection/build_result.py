"""Built: a candidate's file, on its way through the gate.

In: what the stages of one candidate made. Out: a frozen value. Refuses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.backends.candidates import ATTENTION, Candidate
from exporter.tracing.tracer_warnings import Finding
from exporter.verification.reference import Point
from exporter.verification.verify import Outcome
from runtime.format.manifest import Manifest


@dataclass(frozen=True)
class Built:
    """A candidate's file, and what the gate saw of it, once it did.

    `form` is that of the traced example, `findings` what the tracer remarked, `choices` how it computes, in words.
    """

    way: Candidate
    file: Path
    form: str
    findings: tuple[Finding, ...]
    choices: tuple[str, ...]
    manifest: Manifest
    points: Sequence[Point]
    outcome: Outcome | None = None


def how(
    way: Candidate, form: str, repairs: Sequence[str], calibrated: Sequence[str], rewritten: Sequence[str]
) -> tuple[str, ...]:
    """How a candidate computes, a line a choice, for people."""
    return (
        f"attention {way.attention}: {ATTENTION[way.attention]}",
        f"kernels of {way.backend.name}: {way.backend.kernels}",
        f"example inputs traced as a {form}",
        *(f"repaired: {what}" for what in repairs),
        *(f"calibrated: {what}" for what in calibrated),
        *(f"rewritten: {what}" for what in rewritten),
    )
