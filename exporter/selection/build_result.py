"""The result of building one candidate: its file, and later what verification measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.backends.candidates import ATTENTION, Candidate
from exporter.tracing.tracer_warnings import Finding
from exporter.verification.reference import VerificationCase
from exporter.verification.verify import Outcome
from runtime.format.golden import Case
from runtime.format.manifest import Manifest


@dataclass(frozen=True)
class BuildResult:
    """A candidate's file; `outcome` is None until it has been verified.

    `form` is the form of the traced example inputs, `findings` are the tracer's warnings, `choices` say how the file
    computes.
    """

    candidate: Candidate
    file: Path
    form: str
    findings: tuple[Finding, ...]
    choices: tuple[str, ...]
    manifest: Manifest
    cases: Sequence[VerificationCase]
    outcome: Outcome | None = None
    # For a file whose weights alone are rounded: what the rounded model gives in eager fp32.
    rounded: Sequence[Case] = ()


def describe_computation(
    candidate: Candidate, form: str, repairs: Sequence[str], calibrated: Sequence[str], rewritten: Sequence[str]
) -> tuple[str, ...]:
    """How a candidate computes, one line per choice, for people."""
    return (
        f"attention {candidate.attention}: {ATTENTION[candidate.attention]}",
        f"kernels of {candidate.backend.name}: {candidate.backend.kernels}",
        f"example inputs traced as a {form}",
        *(f"repaired: {what}" for what in repairs),
        *(f"calibrated: {what}" for what in calibrated),
        *(f"rewritten: {what}" for what in rewritten),
    )
