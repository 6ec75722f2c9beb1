"""The report of an export, and the clock that times its stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from runtime.format.manifest import Manifest

if TYPE_CHECKING:
    # The module imports torch, which --help does without.
    from exporter.evaluation.comparison import Compared
    from exporter.tracing.tracer_warnings import Finding


@dataclass(frozen=True)
class StageEvent:
    """A stage began or makes progress (`seconds` is None), or it ended; `detail` says what it does or did."""

    name: str
    seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """One finished export.

    `sha256` is the whole file's, `size` is in bytes, `stages` are the events with their seconds, `example_inputs` is
    the form that was traced. `choices` say what was decided and why, `findings` are the tracer's warnings, `metrics`
    those of the model and the artifact on a file of labelled examples, if one was given. `remarks` are for whoever uses
    the file: what it needs besides torch, what was too noisy to time.
    """

    output: str
    size: int
    sha256: str
    example_inputs: str
    stages: tuple[StageEvent, ...]
    choices: tuple[str, ...]
    findings: tuple[Finding, ...]
    manifest: Manifest
    metrics: Compared | None = None
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    def summary(self) -> list[str]:
        """What was written, a few lines, for people."""
        manifest = self.manifest
        lines = [
            f"{self.output}: {self.size / 1e6:.1f} MB, {manifest.task}, {manifest.precision}, {manifest.backend}, "
            f"{sum(stage.seconds or 0 for stage in self.stages):.1f} s",
            f"sha256 {self.sha256}",
        ]
        if manifest.fusions:
            lines.append("fused: " + ", ".join(f"{fusion.count} {fusion.kind}" for fusion in manifest.fusions))
        lines += [f"accuracy: {accuracy.summary}" for accuracy in manifest.accuracy]
        if self.metrics is not None:
            lines.append(f"metrics: {self.metrics.summary}")
        lines.append(
            f"tolerance: max error {manifest.tolerance.max_error:g}, rms {manifest.tolerance.rms_error:g}, "
            "relative to eager fp32 of the original model"
        )
        return [*lines, *self.remarks]

    def explained(self) -> list[str]:
        """Every choice and every finding, one line each, for people."""
        remarks = [f"finding: {finding}" for finding in self.findings]
        return [*(f"choice: {choice}" for choice in self.choices), *(remarks or ["finding: none"])]


Observer = Callable[[StageEvent], None]


@dataclass
class StageClock:
    """Times the stages and tells an observer of each."""

    observe: Observer
    events: list[StageEvent] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Run one stage; lines appended to the value become its detail."""
        self.observe(StageEvent(name))
        start, lines = perf_counter(), list[str]()
        yield lines
        event = StageEvent(name, perf_counter() - start, "; ".join(lines))
        self.events.append(event)
        self.observe(event)

    def progress(self, name: str, detail: str) -> None:
        """Tell the observer about the progress of the running stage."""
        self.observe(StageEvent(name, None, detail))
