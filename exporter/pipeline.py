"""export(): the straight line from a request to a verified file.

In: an ExportRequest, and an observer of the stages. Out: a `Report`; the file stands at its place, or nothing has
changed there. Refuses with an error of `runtime.errors`, whatever the stage. The only module that imports
the stages.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from exporter import patches, reference, rounding, verify
from exporter.adapter import Adapter, adapt
from exporter.backends import ATTENTION, Candidate, candidates
from exporter.describe import draft_manifest
from exporter.envelope import narrow
from exporter.inputs import make_inputs
from exporter.plan import TracePlan, make_plan
from exporter.quiet import third_parties_quiet
from exporter.report import Observer, Report, StageClock, StageEvent
from exporter.request import ExportRequest
from exporter.source import Source, load_source
from exporter.trace import Traced, trace
from exporter.workspace import Workspace, workspace
from runtime import artifact, environment, signing
from runtime.errors import BackendError, CheckpointError, ExportError, ModelFailedError, TraceError, VerificationError
from runtime.golden import dump_cases, sampled
from runtime.manifest import GOLDEN_FILE, TOKENIZER_FILE, Manifest, Tolerance

logger = logging.getLogger("exporter")


def _silent(event: StageEvent) -> None:
    """The observer of those who do not want one."""


def export(request: ExportRequest, observe: Observer = _silent) -> Report:
    """Export one model.

    Args:
        request: what to export, and how.
        observe: called when a stage begins and when it ends.

    Raises:
        ExportError, RequirementError: nothing was written, and an older output is as it was.
    """
    here = environment.detect()
    ways = candidates(request.backend, here)
    requires = ways[0].backend.requirements(request.precision, here)
    environment.check_cpu(requires.cpu_flags, f"{request.precision} with the {ways[0].backend.name} backend", here)
    if request.sign is not None:
        signing.check_private_key(request.sign)
    with third_parties_quiet(), workspace(request.output, request.force) as place:
        clock = StageClock(observe)
        with clock.stage("source") as say:
            source = load_source(request)
            say += [source.summary, source.tokenizer.note]
        with clock.stage("plan") as say:
            plan, adapter = plan_and_adapt(source, request)
            say += plan.choices
        with clock.stage("reference") as say:
            # Before any backend: it may change the model in place, and IPEX replaces PyTorch's own kernels.
            plan, points = reference.reference_points(adapter, plan, adapter.outputs, request.verify)
            say.append(f"eager fp32 at {', '.join(point.name for point in points)}")
            plan, tolerance = rounding.bounds(adapter, plan, points, request)
        line = _Line(request, here, source, plan, points, tolerance, place, clock)
        built, choices = line.first_sound(ways, adapter)
        with clock.stage("publish") as say, place.writing():
            sealed = artifact.seal(place.draft, built.manifest, request.sign)
            if request.verify != "off":
                verify.confirm(place.draft)
            digest, size = artifact.sha256(place.draft), place.draft.stat().st_size
            place.publish()
            checked = "not tried" if request.verify == "off" else "loaded once more as a consumer does"
            say.append(f"sealed, {checked}, renamed into place")
    return Report(
        output=str(request.output),
        size=size,
        sha256=digest,
        example_inputs=built.traced.form,
        stages=tuple(clock.events),
        choices=(*plan.choices, *choices, *built.choices),
        findings=built.traced.findings,
        manifest=sealed,
    )


def plan_and_adapt(source: Source, request: ExportRequest) -> tuple[TracePlan, Adapter]:
    """The plan with the model's main inputs, or with all that are known where the model fails with these alone.

    Raises:
        ModelFailedError: with the reason for the main inputs.
        RequestError, TaskError: as `make_plan` and `adapt` do.
    """
    plan = make_plan(source, request)
    try:
        return plan, adapt(source, plan, make_inputs(plan, plan.example))
    except ModelFailedError as error:
        wider = make_plan(source, request, every=True)
        if [spec.name for spec in wider.inputs] == [spec.name for spec in plan.inputs]:
            raise
        try:
            adapter = adapt(source, wider, make_inputs(wider, wider.example))
        except ModelFailedError:
            raise error from None
        return wider, adapter


@dataclass(frozen=True)
class _Built:
    """A traced module that stands in the draft, with what the gate saw of it."""

    way: Candidate
    traced: Traced
    manifest: Manifest
    outcome: verify.Outcome | None

    @property
    def choices(self) -> tuple[str, ...]:
        """How this one computes, in words."""
        backend = self.way.backend
        return (
            f"attention {self.way.attention}: {ATTENTION[self.way.attention]}",
            f"kernels of {backend.name}: {backend.kernels}",
            f"example inputs traced as a {self.traced.form}",
            *(f"repaired: {what}" for what in self.traced.repairs),
        )


@dataclass(frozen=True)
class _Line:
    """The part of the line that is walked once a candidate: backend, trace, save, verify."""

    request: ExportRequest
    here: environment.Environment
    source: Source
    plan: TracePlan
    points: Sequence[reference.Point]
    tolerance: Tolerance
    place: Workspace
    clock: StageClock

    def first_sound(self, ways: Sequence[Candidate], adapter: Adapter) -> tuple[_Built, list[str]]:
        """The first candidate that is right at every point; else the first that is right within an envelope.

        The choices say what was given up. Raises the first candidate's error where nothing is left.
        """
        choices: list[str] = []
        failures: list[ExportError] = []
        narrowable: list[_Built] = []
        for way in ways:
            name = f"{way.backend.name} with {way.attention} attention"
            try:
                if way is not ways[0]:
                    adapter = self._again(way)
                built = self._build(way, adapter)
            except (BackendError, CheckpointError, TraceError, VerificationError) as error:
                failures.append(error)
            else:
                if built.outcome is None or not built.outcome.failed:
                    return built, [*choices, f"chosen: {name} ({way.reason})"]
                failures.append(verify.refusal(built.outcome, built.manifest.tolerance))
                narrowable.append(built)
            choices.append(f"{name} failed: {failures[-1].found}")
            if len(ways) > 1:
                logger.warning("%s", choices[-1])
        for built in narrowable:
            narrowed = self._narrowed(built)
            if narrowed is not None:
                again, given_up = narrowed
                choices.append(f"given up, because it was wrong there: {given_up}")
                logger.warning("%s", choices[-1])
                return again, choices
        raise failures[0]

    def _again(self, way: Candidate) -> Adapter:
        """The model anew: the candidate before may have changed it."""
        with self.clock.stage("source") as say:
            source = load_source(self.request, way.attention)
            say.append(f"again, with {way.attention} attention")
        return adapt(source, self.plan, make_inputs(self.plan, self.plan.example))

    def _build(self, way: Candidate, adapter: Adapter) -> _Built:
        backend, request, plan = way.backend, self.request, self.plan
        with self.clock.stage("backend") as say:
            # After the reference: its answers are the untouched model's.
            repairs = patches.repair(adapter.model)
            module = backend.optimise(adapter, request.precision)
            words = f"{backend.name}: {way.reason}; {request.precision}, {way.attention} attention"
            say += [*(f"repaired: {what}" for what in repairs), words]
        with self.clock.stage("trace") as say:
            example = make_inputs(plan, plan.example)
            traced = trace(module, example, request.example_inputs, backend.autocast(request.precision))
            traced = dataclasses.replace(traced, repairs=tuple(repairs))
            say.append(f"{traced.form} example inputs, {plan.example_words}")
        return self._try(way, traced, plan, self.points)

    def _try(self, way: Candidate, traced: Traced, plan: TracePlan, points: Sequence[reference.Point]) -> _Built:
        """Save the draft and run the gate on it."""
        requires = way.backend.requirements(self.request.precision, self.here)
        manifest = draft_manifest(self.request, self.source, plan, way.backend.name, requires, points, self.tolerance)
        parts = {GOLDEN_FILE: dump_cases([sampled(point.case) for point in points])}
        if self.source.tokenizer.content is not None:
            parts[TOKENIZER_FILE] = self.source.tokenizer.content
        with self.clock.stage("save") as say, self.place.writing():
            artifact.save(traced.module, self.place.draft, parts)
            say.append(f"{self.place.draft.stat().st_size / 1e6:.1f} MB")
        if self.request.verify == "off":
            logger.warning("NOT verified (--verify off): the artifact says so")
            return _Built(way, traced, manifest, None)
        with self.clock.stage("verify") as say, self.place.writing():
            outcome = verify.verify(self.place.draft, manifest, points)
            say.append(outcome.summary)
        fusions = way.backend.fusions(outcome.operators)
        return _Built(way, traced, dataclasses.replace(manifest, verified=outcome.points, fusions=fusions), outcome)

    def _narrowed(self, built: _Built) -> tuple[_Built, str] | None:
        """The same module within a smaller envelope, verified anew there; None where nothing sound is left."""
        assert built.outcome is not None
        envelope = narrow(self.plan, [point.trial for point in self.points], built.outcome.failed)
        if envelope is None:
            return None
        inside = [point for point in self.points if point.trial.name in envelope.inside]
        again = self._try(built.way, built.traced, envelope.plan, inside)
        if again.outcome is None or again.outcome.failed:
            return None
        return again, envelope.given_up
