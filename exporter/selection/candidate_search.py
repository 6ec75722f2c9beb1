"""Build the candidates, verify them, and choose: the first one that is correct, the fastest first if they are timed.

Candidates that are wrong at some shapes are kept: if no candidate is correct everywhere, the first is taken that is
correct for a smaller range of shapes. If there is none, the error of the first candidate is raised.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from exporter.backends.base import Backend, CacheAttender, WeightRounder, optimise
from exporter.backends.candidates import Candidate
from exporter.config.request import ExportRequest
from exporter.config.tolerances import TOLERANCES
from exporter.loading.hub import AttentionError
from exporter.loading.loader import Source, load_source
from exporter.packaging.manifest_builder import draft_manifest
from exporter.packaging.operator_check import check_draft
from exporter.packaging.report import StageClock
from exporter.packaging.staging import Workspace
from exporter.preprocessing.preprocessor import PreprocessingPlan
from exporter.selection.autotune import Draft, TimedShape, fastest_first, time_drafts, timings, tune_shapes
from exporter.selection.build_result import BuildResult, describe_computation
from exporter.selection.hints import with_remedy
from exporter.selection.padding_fallback import drop_padding, expected_cases, with_padding_kept
from exporter.shapes.example_inputs import ExampleInputs, make_inputs
from exporter.shapes.narrowing import narrow
from exporter.shapes.trace_plan import TracePlan
from exporter.tracing import patches
from exporter.tracing.adapter import Adapter, adapt
from exporter.tracing.decoder import Decoding
from exporter.tracing.graphs.graph_functions import define_method
from exporter.tracing.graphs.token_pruning import prune
from exporter.tracing.trace import Traced, rewriting, trace
from exporter.verification import verify
from exporter.verification.generation import generation_cases, generation_refusal, verify_generation
from exporter.verification.reference import VerificationCase, probe_cases
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
from runtime.format.golden import Case
from runtime.format.manifest import Manifest, Tolerance
from runtime.host import requirements
from runtime.host.torchscript import ScriptModule

logger = logging.getLogger("exporter")

# How often the supported shapes may be narrowed further.
_ROUNDS = 3
# Axes of images and sounds, whose sizes many models' traces keep.
_DATA_SIZES = {"height", "width", "samples", "frames"}


@dataclass(frozen=True)
class DecodingPlan:
    """How a model that generates text is traced, and the cases to verify its method `decode` with."""

    decoding: Decoding
    cases: Sequence[Case]


@dataclass
class CandidateSearch:
    """What all candidates share; `choices` say what was chosen or excluded, and why."""

    request: ExportRequest
    environment: requirements.Environment
    source: Source
    # The untouched model, for the first candidate alone: a backend may change it.
    adapter: Adapter | None
    plan: TracePlan
    cases: Sequence[VerificationCase]
    tolerance: Tolerance
    place: Workspace
    clock: StageClock
    # To calibrate int8 with.
    samples: Sequence[Mapping[str, torch.Tensor]] = ()
    # What the file makes of pictures or sounds.
    preprocessing: PreprocessingPlan = field(default_factory=PreprocessingPlan)
    # For models that generate text.
    decoding: DecodingPlan | None = None
    choices: list[str] = field(default_factory=list)
    # What a user should know of the result.
    remarks: list[str] = field(default_factory=list)
    failures: list[tuple[Candidate, ExportError]] = field(default_factory=list)
    # Those that were built to be timed, by name.
    timed: dict[str, BuildResult] = field(default_factory=dict)

    def first_correct(self, candidates: Sequence[Candidate]) -> BuildResult:
        """The first candidate that is correct in every case; else the first that is correct for fewer shapes.

        Raises:
            ExportError: the first failure, if no candidate is left, with the options that were not tried.
        """
        several = len(candidates) > 1
        partly_correct: list[BuildResult] = []
        for built in with_padding_kept(self._in_order(candidates), lambda candidate: self._build(candidate, True)):
            try:
                verified = self._verify(built)
            except VerificationError as error:
                self._failed(built.candidate, error, several)
                continue
            if verified.outcome is None or not verified.outcome.failed:
                self.choices.append(f"chosen: {built.candidate.name} ({built.candidate.reason})")
                return verified
            self._failed(built.candidate, verify.refusal(verified.outcome, verified.manifest.tolerance), several)
            partly_correct.append(verified)
            if several and self._trace_is_wrong(partly_correct, candidates):
                narrowed = self._first_narrowed(partly_correct)
                if narrowed is not None:
                    self.choices.append("other candidates not tried: the trace itself is wrong at the same sizes")
                    return narrowed
        narrowed = self._first_narrowed(partly_correct)
        if narrowed is None:
            # That a model lacks a form of attention says less than what is wrong with the others.
            failures = sorted(self.failures, key=lambda failure: isinstance(failure[1], AttentionError))
            raise with_remedy(failures, self.request, self.plan)
        return narrowed

    def _trace_is_wrong(self, partly_correct: Sequence[BuildResult], candidates: Sequence[Candidate]) -> bool:
        """Whether the trace is to blame for sizes of images or sounds at which the last candidate is wrong.

        It is if the plain trace, or an earlier candidate of another backend, is wrong at the same ones: then every
        backend is. For texts the forms of attention matter too, and trying the others takes little time.
        """
        *earlier, wrong = partly_correct
        failed, backend = _failed_cases(wrong), wrong.candidate.backend.name
        shapes = [case.test_shape for case in wrong.cases]
        if not _DATA_SIZES & self.plan.dimensions.keys() or narrow(self.plan, shapes, failed) is None:
            return False
        if backend == "plain" or any(
            one.candidate.backend.name != backend and _failed_cases(one) == failed for one in earlier
        ):
            return True
        plain = next((candidate for candidate in candidates if candidate.backend.name == "plain"), None)
        built = None if plain is None else self.timed.get(plain.name) or self._build(plain, True)
        if built is None:
            return False
        cases = [case for case in built.cases if case.golden.name in failed]
        try:
            return _failed_cases(self._verify(dataclasses.replace(built, cases=cases))) == failed
        except VerificationError:
            return False

    def _first_narrowed(self, partly_correct: Sequence[BuildResult]) -> BuildResult | None:
        """The first of these files that is correct for fewer shapes; None if there is none."""
        hopeless: list[frozenset[str]] = []
        for built in partly_correct:
            failed = _failed_cases(built)
            if any(failed >= earlier for earlier in hopeless):
                # Wrong wherever an earlier one was, for which no range of shapes was left.
                continue
            hopeless.append(failed)
            found = self._narrowed(built)
            if found is not None:
                narrowed, excluded = found
                self.choices.append(f"excluded, because it was wrong there: {excluded}")
                logger.warning("%s", self.choices[-1])
                return narrowed
        return None

    def _in_order(self, candidates: Sequence[Candidate]) -> Iterator[BuildResult]:
        """Each candidate, built: first the timed ones by speed, then the others in their order."""
        timed = [candidate for candidate in candidates if candidate.timed]
        if len(timed) > 1:
            shapes = tune_shapes(self.plan, self.request.tune_shapes, self.request.padding == "drop")
            yield from self._by_speed([built for candidate in timed if (built := self._build(candidate, True))], shapes)
        for candidate in candidates:
            if (len(timed) < 2 or not candidate.timed) and (
                built := self._build(candidate, len(candidates) > 1)
            ) is not None:
                yield built

    def _by_speed(self, built: Sequence[BuildResult], shapes: Sequence[TimedShape]) -> Iterator[BuildResult]:
        threads = torch.get_num_threads()
        drafts = [Draft(one.candidate.name, one.file, one.manifest, self.request.allow_operators) for one in built]
        with self.clock.stage("tune") as notes, self.place.writing():
            tuned = time_drafts(drafts, shapes, self.request.tune, threads)
            order = fastest_first([draft.name for draft in drafts], tuned.times)
            for name in order:
                medians = ", ".join(f"{milliseconds:.2f}" for milliseconds in tuned.times.get(name, ()))
                notes.append(f"{name} {medians} ms" if medians else f"{name} was not timed")
            notes += tuned.doubts
        self.remarks += [f"tuning: {doubt}" for doubt in tuned.doubts]
        self.timed = {one.candidate.name: one for one in built}
        for chosen in order:
            found, one = timings(order, chosen, tuned.times, tuned.shapes, threads), self.timed[chosen]
            yield dataclasses.replace(one, manifest=dataclasses.replace(one.manifest, timings=found))

    def _build(self, candidate: Candidate, several: bool) -> BuildResult | None:
        """The candidate's file; None if building it failed, which `failures` then records."""
        try:
            adapter, self.adapter = self.adapter, None
            return self._build_from(adapter or self._load_again(candidate), candidate)
        except (BackendError, CheckpointError, ForbiddenOperatorError, TraceError) as error:
            self._failed(candidate, error, several)
            return None

    def _load_again(self, candidate: Candidate) -> Adapter:
        """Load the model again: an earlier candidate may have changed it."""
        with self.clock.stage("source") as notes:
            source = load_source(self.request, candidate.attention)
            notes.append(f"again, with {candidate.attention} attention")
        return adapt(source, self.plan, make_inputs(self.plan, self.plan.example))

    def _build_from(self, adapter: Adapter, candidate: Candidate) -> BuildResult:
        """Prepare the model with the backend, trace it, rewrite the trace, write the file."""
        if self.decoding is not None:
            return self._build_decoder(self.decoding.decoding, adapter, candidate)
        example = make_inputs(self.plan, self.plan.example)
        module, repairs, calibrated = self._prepare(adapter, candidate, example)
        traced, candidate, rewritten = self._trace(module, candidate, example)
        cases = expected_cases(candidate, self.cases)
        return BuildResult(
            candidate=candidate,
            file=self._save(traced.module, candidate),
            form=traced.form,
            findings=traced.findings,
            choices=describe_computation(candidate, traced.form, repairs, calibrated, rewritten),
            manifest=self._manifest(candidate, self.plan, cases),
            cases=cases,
        )

    def _build_decoder(self, decoding: Decoding, adapter: Adapter, candidate: Candidate) -> BuildResult:
        """The same for a model that generates text: its caches are inputs of the trace."""
        backend, precision = candidate.backend, self.request.precision
        example = decoding.example(self.source.vocabulary)
        attention: list[str] = []
        with self.clock.stage("backend") as notes:
            repairs = patches.repair(adapter.model)
            rounding, rounded = self._round(adapter, backend)
            decoder = decoding.module(adapter.model)
            with decoding.kept_in_fp32(adapter.model):
                module = backend.optimise(decoder, precision)
            notes += [f"repaired: {what}" for what in repairs]
            notes.append(f"{backend.name}: {candidate.reason}; {precision}, {candidate.attention} attention")
            if isinstance(backend, CacheAttender) and candidate.attention == "sdpa":
                attention = [decoder.use_own_attention(example, decoding.longest)]
                notes += attention
            notes += rounding
        with self.clock.stage("trace") as notes:
            traced = trace(module, example, self.request.example_inputs, backend.autocast(precision))
            with rewriting(backend.name):
                rewritten = [*attention, *filter(None, [backend.rewrite(traced.module, example, precision)])]
            notes += [f"{traced.form} example inputs, with {len(decoding.caches)} caches", *rewritten]
        return BuildResult(
            candidate=candidate,
            file=self._save(decoding.finish(traced.module), candidate),
            form=traced.form,
            findings=traced.findings,
            choices=(*describe_computation(candidate, traced.form, repairs, [], rewritten), *rounding),
            manifest=self._manifest(candidate, self.plan, self.cases),
            cases=self.cases,
            rounded=rounded,
        )

    def _round(self, adapter: Adapter, backend: Backend) -> tuple[list[str], list[Case]]:
        """Round the model's weights if that is what the backend does; notes, and what the rounded model gives."""
        if not isinstance(backend, WeightRounder):
            return [], []
        note = backend.round_weights(adapter.model, self.request.precision, self.source.codes)
        # In bf16 linears may round their inputs too, so the file is not that model in fp32.
        verified = self.request.verify != "off" and self.request.precision != "bf16"
        return [note], generation_cases(adapter.model, self.plan) if verified else []

    def _prepare(
        self, adapter: Adapter, candidate: Candidate, example: ExampleInputs
    ) -> tuple[torch.nn.Module, list[str], list[str]]:
        """The module to trace, and notes on what was repaired and on calibration."""
        backend, precision = candidate.backend, self.request.precision
        with self.clock.stage("backend") as notes:
            # The reference is complete: its outputs must be those of the untouched model.
            repairs = patches.repair(adapter.model)
            module, calibrated = optimise(backend, adapter, precision, example, self.samples, self._show_calibration)
            notes += [f"repaired: {what}" for what in repairs]
            notes += [f"{backend.name}: {candidate.reason}; {precision}, {candidate.attention} attention", *calibrated]
        return module, repairs, calibrated

    def _trace(
        self, module: torch.nn.Module, candidate: Candidate, example: ExampleInputs
    ) -> tuple[Traced, Candidate, list[str]]:
        """The rewritten trace, the candidate as it could be carried out, and notes on what was rewritten."""
        backend, request = candidate.backend, self.request
        with self.clock.stage("trace") as notes:
            traced = trace(module, example, request.example_inputs, backend.autocast(request.precision))
            with rewriting(backend.name):
                pruned = prune(traced.module, example)
                rewritten = [f"{pruned} linears compute the one token that the head reads"] if pruned else []
                candidate, dropped = drop_padding(candidate, self.plan, traced.module, example, request.precision)
                rewritten += filter(None, [*dropped, backend.rewrite(traced.module, example, request.precision)])
            notes += [f"{traced.form} example inputs, {self.plan.example_sizes}", *rewritten]
        return traced, candidate, rewritten

    def _save(self, module: ScriptModule, candidate: Candidate) -> Path:
        file = self.place.draft.with_name(f"{candidate.name.replace(' ', '-')}.pt")
        with self.clock.stage("save") as notes, self.place.writing():
            preprocessor = self.preprocessing.preprocessor
            if preprocessor is not None:
                define_method(module, "preprocess", preprocessor.function, preprocessor.constants)
            artifact_file.save(module, file)
            check_draft(module, file, self.request.allow_operators)
            notes.append(f"{file.stat().st_size / 1e6:.1f} MB")
        return file

    def _show_calibration(self, done: int) -> None:
        self.clock.progress("backend", f"calibrating, {done} of {len(self.samples)} samples")

    def _manifest(self, candidate: Candidate, plan: TracePlan, cases: Sequence[VerificationCase]) -> Manifest:
        requires = candidate.backend.requirements(self.request.precision, self.environment)
        preprocessor, results = self.preprocessing.preprocessor, self.preprocessing.results
        prompts = self.preprocessing.prompts
        info = None if preprocessor is None else preprocessor.describe(plan.inputs)
        caches = () if self.decoding is None else self.decoding.decoding.caches
        return draft_manifest(
            self.request,
            self.source,
            plan,
            candidate,
            requires,
            cases,
            self.tolerance,
            info,
            results,
            prompts,
            caches,
        )

    def _verify(self, built: BuildResult) -> BuildResult:
        """Compare the file with the original model in fresh processes."""
        if self.request.verify == "off":
            logger.warning("NOT verified (--verify off): the artifact says so")
            return built
        with self.clock.stage("verify") as notes, self.place.writing():
            outcome = verify.verify(
                built.file, built.manifest, built.cases, self.request.allow_operators, self.preprocessing
            )
            notes.append(outcome.summary)
            if self.decoding is not None and not outcome.failed:
                built = dataclasses.replace(built, manifest=self._verified_decoder(self.decoding, built, notes))
        fusions = built.candidate.backend.fusions(outcome.operators)
        manifest = dataclasses.replace(built.manifest, verified=outcome.cases, fusions=fusions)
        return dataclasses.replace(built, manifest=manifest, outcome=outcome)

    def _verified_decoder(self, plan: DecodingPlan, built: BuildResult, notes: list[str]) -> Manifest:
        """The manifest with what was measured of the method `decode`.

        Raises:
            VerificationError: it is wrong.
        """
        allow, exact = self.request.allow_operators, TOLERANCES["fp32", self.plan.task.kind]
        outcome = verify_generation(built.file, built.manifest, plan.cases, allow)
        notes.append(outcome.summary)
        if outcome.wrong or built.manifest.generation is None:
            raise generation_refusal(outcome.wrong, built.manifest.tolerance)
        if built.rounded:
            # Rounding hides no fault of the kernels: from the rounded model the file may differ as one in fp32 may.
            again = verify_generation(built.file, built.manifest, built.rounded, allow, exact)
            notes.append(f"against the rounded model in eager fp32: {again.summary}")
            if again.wrong:
                raise generation_refusal(again.wrong, exact, "from the rounded model")
        generation = dataclasses.replace(
            built.manifest.generation,
            max_error=outcome.max_error,
            rms_error=outcome.rms_error,
            greedy=outcome.greedy,
        )
        return dataclasses.replace(built.manifest, generation=generation)

    def _narrowed(self, built: BuildResult) -> tuple[BuildResult, str] | None:
        """The same file for fewer shapes, verified again, and what was excluded; None if no range is left.

        It is verified at further shapes too: once one shape has failed, the few that passed say little about others.
        """
        assert built.outcome is not None
        if self.decoding is not None:
            # Rows of a generation grow through all sizes.
            return None
        cases, failed = list(built.cases), dict(built.outcome.failed)
        for _ in range(_ROUNDS):
            supported = narrow(self.plan, [case.test_shape for case in cases], failed)
            if supported is None:
                return None
            inside = [case for case in cases if case.test_shape.name in supported.inside]
            more = self._probes(built.candidate, supported.plan, len(cases))
            if more is None:
                return None
            manifest = self._manifest(built.candidate, supported.plan, inside)
            manifest = dataclasses.replace(manifest, timings=built.manifest.timings)
            narrowed_result = self._verify(dataclasses.replace(built, manifest=manifest, cases=[*inside, *more]))
            if narrowed_result.outcome is None or not narrowed_result.outcome.failed:
                return narrowed_result, supported.excluded
            cases, failed = [*cases, *more], failed | narrowed_result.outcome.failed
        return None

    def _probes(self, candidate: Candidate, plan: TracePlan, first: int) -> list[VerificationCase] | None:
        """Further cases inside a narrowed plan; None if the original model fails there."""
        with self.clock.stage("reference") as notes:
            adapter = adapt(load_source(self.request), self.plan, make_inputs(self.plan, self.plan.example))
            try:
                cases = probe_cases(adapter, plan, adapter.outputs, first)
            except ModelFailedError:
                return None
            notes.append(f"again, at {', '.join(case.name for case in cases)}")
        return expected_cases(candidate, cases)

    def _failed(self, candidate: Candidate, error: ExportError, several: bool) -> None:
        self.failures.append((candidate, error))
        self.choices.append(f"{candidate.name} failed: {error.found}")
        if several:
            logger.warning("%s", self.choices[-1])


def _failed_cases(built: BuildResult) -> frozenset[str]:
    """The names of the cases at which a verified file is wrong."""
    return frozenset() if built.outcome is None else frozenset(built.outcome.failed)
