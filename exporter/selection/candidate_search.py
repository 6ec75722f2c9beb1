"""The part of the straight line that is walked once a candidate, and the choice between candidates.

In: what the stages before have made, and the candidates. Out: `Built`, the first candidate that is right, the fastest
first where they are timed. Refuses (with the first failure) a model that no candidate is right for.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from exporter.backends.base import optimise
from exporter.backends.candidates import Candidate
from exporter.config.request import ExportRequest
from exporter.loading.loader import Source, load_source
from exporter.packaging.manifest_builder import draft_manifest
from exporter.packaging.operator_check import check_draft
from exporter.packaging.report import StageClock
from exporter.packaging.staging import Workspace
from exporter.selection.autotune import Draft, Timed, fastest_first, time_drafts, timings, tune_shapes
from exporter.selection.build_result import Built, how
from exporter.selection.hints import with_remedy
from exporter.selection.padding_fallback import answered, drop_padding, with_padding_kept
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.narrowing import narrow
from exporter.shapes.trace_plan import TracePlan
from exporter.tracing import patches
from exporter.tracing.adapter import Adapter, adapt
from exporter.tracing.graphs.token_pruning import prune
from exporter.tracing.trace import trace
from exporter.verification import verify
from exporter.verification.reference import Point, probe_points
from runtime.artifact import artifact_file
from runtime.errors import (
    BackendError,
    CheckpointError,
    ExportError,
    ForbiddenOperatorError,
    ModelFailedError,
    TraceError,
    VerificationError,
)
from runtime.format.manifest import Manifest, Tolerance
from runtime.host import requirements

logger = logging.getLogger("exporter")

# How often an envelope may turn out too wide.
_ROUNDS = 3


@dataclass
class Attempts:
    """What all candidates share; `choices` says what was given up, and why."""

    request: ExportRequest
    here: requirements.Environment
    source: Source
    # The untouched model, for whichever candidate comes first: a backend may change it.
    adapter: Adapter | None
    plan: TracePlan
    points: Sequence[Point]
    tolerance: Tolerance
    place: Workspace
    clock: StageClock
    # For int8.
    samples: Sequence[Mapping[str, torch.Tensor]] = ()
    choices: list[str] = field(default_factory=list)
    failures: list[tuple[Candidate, ExportError]] = field(default_factory=list)

    def first_sound(self, ways: Sequence[Candidate]) -> Built:
        """The first candidate that is right at every point; else the first that is right within an envelope.

        Raises the first failure where nothing is left, with what was not tried.
        """
        several = len(ways) > 1
        narrowable: list[Built] = []
        for built in with_padding_kept(self._in_order(ways), lambda way: self._build(way, True)):
            try:
                verified = self._verify(built)
            except VerificationError as error:
                self._failed(built.way, error, several)
                continue
            if verified.outcome is None or not verified.outcome.failed:
                self.choices.append(f"chosen: {built.way.name} ({built.way.reason})")
                return verified
            self._failed(built.way, verify.refusal(verified.outcome, verified.manifest.tolerance), several)
            narrowable.append(verified)
        hopeless: list[frozenset[str]] = []
        for built in narrowable:
            assert built.outcome is not None
            failed = frozenset(built.outcome.failed)
            if any(failed >= earlier for earlier in hopeless):
                # Wrong wherever an earlier one was, which nothing sound was left of: the trace is to blame.
                continue
            hopeless.append(failed)
            narrowed = self._narrowed(built)
            if narrowed is not None:
                again, given_up = narrowed
                self.choices.append(f"given up, because it was wrong there: {given_up}")
                logger.warning("%s", self.choices[-1])
                return again
        raise with_remedy(self.failures, self.request, self.plan)

    def _in_order(self, ways: Sequence[Candidate]) -> Iterator[Built]:
        """Each candidate, built: the timed ones by speed, then the others as they are listed."""
        timed = [way for way in ways if way.timed]
        if len(timed) > 1:
            shapes = tune_shapes(self.plan, self.request.tune_shapes, self.request.padding == "drop")
            yield from self._by_speed([built for way in timed if (built := self._build(way, True))], shapes)
        for way in ways:
            if (len(timed) < 2 or not way.timed) and (built := self._build(way, len(ways) > 1)) is not None:
                yield built

    def _by_speed(self, built: Sequence[Built], shapes: Sequence[Timed]) -> Iterator[Built]:
        threads = torch.get_num_threads()
        drafts = [Draft(one.way.name, one.file, one.manifest, self.request.allow_operators) for one in built]
        with self.clock.stage("tune") as say, self.place.writing():
            times = time_drafts(drafts, shapes, self.request.tune, threads)
            order = fastest_first([draft.name for draft in drafts], times)
            for name in order:
                medians = ", ".join(f"{milliseconds:.2f}" for milliseconds in times.get(name, ()))
                say.append(f"{name} {medians or 'failed'}{' ms' if medians else ''}")
        named = {one.way.name: one for one in built}
        for chosen in order:
            found = timings(order, chosen, times, shapes, threads)
            yield dataclasses.replace(
                named[chosen], manifest=dataclasses.replace(named[chosen].manifest, timings=found)
            )

    def _build(self, way: Candidate, several: bool) -> Built | None:
        """The candidate's file; None where it failed, which `failures` then says."""
        try:
            adapter, self.adapter = self.adapter, None
            return self._trace(way, adapter or self._again(way))
        except (BackendError, CheckpointError, ForbiddenOperatorError, TraceError) as error:
            self._failed(way, error, several)
            return None

    def _again(self, way: Candidate) -> Adapter:
        """The model anew: the candidate before may have changed it."""
        with self.clock.stage("source") as say:
            source = load_source(self.request, way.attention)
            say.append(f"again, with {way.attention} attention")
        return adapt(source, self.plan, make_inputs(self.plan, self.plan.example))

    def _trace(self, way: Candidate, adapter: Adapter) -> Built:
        backend, request, plan = way.backend, self.request, self.plan
        with self.clock.stage("backend") as say:
            # After the reference: its answers are the untouched model's.
            repairs = patches.repair(adapter.model)
            example = make_inputs(plan, plan.example)
            module, calibrated = optimise(backend, adapter, request.precision, example, self.samples, self._calibrating)
            say += [f"repaired: {what}" for what in repairs]
            say += [f"{backend.name}: {way.reason}; {request.precision}, {way.attention} attention", *calibrated]
        with self.clock.stage("trace") as say:
            traced = trace(module, example, request.example_inputs, backend.autocast(request.precision))
            pruned = prune(traced.module, example)
            rewritten = [f"{pruned} linears compute the one token that the head reads"] if pruned else []
            way, dropped = drop_padding(way, plan, traced.module, example)
            rewritten += filter(None, [*dropped, backend.rewrite(traced.module, example)])
            say += [f"{traced.form} example inputs, {plan.example_words}", *rewritten]
        points = answered(way, self.points)
        file = self.place.draft.with_name(f"{way.name.replace(' ', '-')}.pt")
        with self.clock.stage("save") as say, self.place.writing():
            artifact_file.save(traced.module, file)
            check_draft(traced.module, file, request.allow_operators)
            say.append(f"{file.stat().st_size / 1e6:.1f} MB")
        choices = how(way, traced.form, repairs, calibrated, rewritten)
        manifest = self._manifest(way, plan, points)
        return Built(way, file, traced.form, traced.findings, choices, manifest, points)

    def _calibrating(self, done: int) -> None:
        self.clock.progress("backend", f"calibrating, {done} of {len(self.samples)} samples")

    def _manifest(self, way: Candidate, plan: TracePlan, points: Sequence[Point]) -> Manifest:
        requires = way.backend.requirements(self.request.precision, self.here)
        return draft_manifest(self.request, self.source, plan, way, requires, points, self.tolerance)

    def _verify(self, built: Built) -> Built:
        """Run the gate on the file."""
        if self.request.verify == "off":
            logger.warning("NOT verified (--verify off): the artifact says so")
            return built
        with self.clock.stage("verify") as say, self.place.writing():
            outcome = verify.verify(built.file, built.manifest, built.points, self.request.allow_operators)
            say.append(outcome.summary)
        fusions = built.way.backend.fusions(outcome.operators)
        manifest = dataclasses.replace(built.manifest, verified=outcome.points, fusions=fusions)
        return dataclasses.replace(built, manifest=manifest, outcome=outcome)

    def _narrowed(self, built: Built) -> tuple[Built, str] | None:
        """The same file within a smaller envelope, verified anew there; None where nothing sound is left.

        At further shapes too: a few that passed say little of the others once one has failed.
        """
        assert built.outcome is not None
        points, failed = list(built.points), dict(built.outcome.failed)
        for _ in range(_ROUNDS):
            envelope = narrow(self.plan, [point.trial for point in points], failed)
            if envelope is None:
                return None
            inside = [point for point in points if point.trial.name in envelope.inside]
            more = self._probes(built.way, envelope.plan, len(points))
            if more is None:
                return None
            manifest = self._manifest(built.way, envelope.plan, inside)
            manifest = dataclasses.replace(manifest, timings=built.manifest.timings)
            again = self._verify(dataclasses.replace(built, manifest=manifest, points=[*inside, *more]))
            if again.outcome is None or not again.outcome.failed:
                return again, envelope.given_up
            points, failed = [*points, *more], failed | again.outcome.failed
        return None

    def _probes(self, way: Candidate, plan: TracePlan, first: int) -> list[Point] | None:
        """Shapes inside a narrowed plan with the original model's answers; None where it fails itself."""
        with self.clock.stage("reference") as say:
            adapter = adapt(load_source(self.request), self.plan, make_inputs(self.plan, self.plan.example))
            try:
                points = probe_points(adapter, plan, adapter.outputs, first)
            except ModelFailedError:
                return None
            say.append(f"again, at {', '.join(point.name for point in points)}")
        return answered(way, points)

    def _failed(self, way: Candidate, error: ExportError, several: bool) -> None:
        self.failures.append((way, error))
        self.choices.append(f"{way.name} failed: {error.found}")
        if several:
            logger.warning("%s", self.choices[-1])
