"""export(): from a request to a verified file, one function per stage.

`export` is meant to be read from top to bottom: each stage takes values and returns a value. It is the only module that
imports the stages.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from exporter.backends.candidates import Candidate, decoder_candidates, left_out, list_candidates
from exporter.calibration.dataset import CalibrationFile, read_calibration
from exporter.calibration.sampling import Sample, fit_calibration
from exporter.config.request import ExportRequest, no_calibration
from exporter.evaluation.comparison import Compared, Labelled, read_labelled
from exporter.evaluation.perplexity import Lines, read_lines
from exporter.loading.generation_settings import cache_sizes
from exporter.loading.hub import AttentionError
from exporter.loading.image_preprocessing import plan_pictures
from exporter.loading.image_prompts import picture_prompts
from exporter.loading.image_results import picture_results
from exporter.loading.image_sizes import listed
from exporter.loading.loader import Source, load_source
from exporter.loading.sound_steps import plan_sounds
from exporter.loading.third_party_logs import third_parties_quiet
from exporter.packaging.cpp_header import cpp_header
from exporter.packaging.manifest_builder import LONGEST, describe_outputs
from exporter.packaging.operator_check import check_allowed
from exporter.packaging.report import Observer, Report, StageClock, StageEvent
from exporter.packaging.staging import Workspace, expect_no_source, workspace
from exporter.preprocessing.preprocessor import PreprocessingPlan
from exporter.selection.build_result import BuildResult
from exporter.selection.candidate_search import CandidateSearch, DecodingPlan
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.image_sizes import describe_support
from exporter.shapes.trace_plan import TracePlan, make_plan
from exporter.tracing.adapter import Adapter, adapt
from exporter.tracing.decoder import Decoding
from exporter.tracing.patches import experts
from exporter.verification import noise_floor, reference, size_trial, verify
from exporter.verification.generation import generation_cases
from exporter.verification.reference import VerificationCase
from runtime.artifact import artifact_file, signing
from runtime.errors import CpuFeatureError, ModelFailedError, RequestError, TaskError
from runtime.format.golden import Case, dump_within
from runtime.format.manifest import GOLDEN_FILE, TOKENIZER_FILE, Manifest, Precision, Tolerance
from runtime.host import requirements
from runtime.host.requirements import Environment

logger = logging.getLogger("exporter")

# The most that golden cases may take in a file: whichever is more.
_GOLDEN_BYTES, _GOLDEN_SHARE = 2_000_000, 0.05


def _ignore(event: StageEvent) -> None:
    """The default observer."""


def export(request: ExportRequest, observe: Observer = _ignore) -> Report:
    """Export one model.

    Args:
        request: what to export, and how.
        observe: called when a stage begins and when it ends.

    Raises:
        ExportError, RequirementError: nothing was written, and an older output is as it was.
    """
    environment = requirements.detect()
    candidates, skipped = _check_request(request, environment)
    calibration = None if request.calibration is None else read_calibration(request.calibration)
    expect_no_source(request.output, request.model)
    with third_parties_quiet(), workspace(request.output, request.force) as place, _header_place(request) as header:
        clock = StageClock(observe)
        source = _load(request, candidates, clock)
        if source.task.generates:
            if calibration is not None:
                raise RequestError(
                    "calibration is given, and text-generation rounds weights alone, without samples",
                    "no calibration",
                    "leave out --calibration",
                )
            able = decoder_candidates(request.backend, environment, request.precision, request.int4_group)
            candidates, _ = _runnable(able, request.precision, environment)
        elif request.precision == "int4":
            raise RequestError(f"precision is int4 and task is {source.task.name}", "int4 only for text-generation")
        elif request.precision == "int8" and calibration is None and request.backend != "native":
            raise no_calibration()
        if source.reads_padding:
            candidates = [dataclasses.replace(candidate, drop_padding=False) for candidate in candidates]
        plan, adapter = _plan(request, source, clock)
        preprocessing = _plan_preprocessing(source, plan, clock)
        # Before any backend: it may change the model in place, and IPEX replaces PyTorch's own kernels.
        plan = _try_sizes(request, plan, adapter, clock)
        plan, cases, tolerance = _run_reference(request, plan, adapter, clock)
        decoding = _plan_decoding(request, source, plan, clock)
        evaluation = _evaluate_model(request, source, plan, adapter, clock)
        samples, held_out = _prepare_samples(calibration, source, plan, cases, adapter, clock)
        untouched = adapter if source.attention == candidates[0].attention else None
        search = CandidateSearch(
            request,
            environment,
            source,
            untouched,
            plan,
            cases,
            tolerance,
            place,
            clock,
            samples,
            preprocessing,
            decoding,
        )
        search.choices += skipped
        # The search owns the model from here on.
        del adapter, untouched
        built = search.first_correct(candidates)
        support = _compare_images(request, source, built)
        built = _measure_accuracy(request, built, held_out, place, clock)
        metrics = _evaluate_file(request, evaluation, built, place, clock)
        published = _publish(request, source, built, place, header, clock)
    return Report(
        output=str(request.output),
        size=published.size,
        sha256=published.sha256,
        example_inputs=built.form,
        stages=tuple(clock.events),
        choices=(*source.notes, *plan.choices, *preprocessing.notes, *search.choices, *built.choices, *support),
        findings=built.findings,
        manifest=published.manifest,
        metrics=metrics,
        remarks=(*_needs(published.manifest), *search.remarks),
    )


def _needs(manifest: Manifest) -> list[str]:
    """What the file needs besides torch and is no package of its own, for people."""
    if manifest.requires.native is None:
        return []
    return [
        f"needs this project's own operators, version {manifest.requires.native}: the package `runtime` has them, C++ "
        "programs build them (docs/cpp.md); --backend stock writes a file that needs torch alone"
    ]


def _check_request(request: ExportRequest, environment: Environment) -> tuple[list[Candidate], list[str]]:
    """Refuse what this machine cannot do before any work is done.

    Returns:
        The candidates that it can try, and notes on the others.
    """
    check_allowed(request.allow_operators)
    if request.precision == "int4" or (request.precision == "int8" and request.task == "text-generation"):
        listed = decoder_candidates(request.backend, environment, request.precision, request.int4_group)
        return listed, []
    listed = list_candidates(
        request.backend, environment, request.tune, request.precision, request.padding, request.long
    )
    candidates, notes = _runnable(listed, request.precision, environment)
    if request.sign is not None:
        signing.check_private_key(request.sign)
    return candidates, [*left_out(request.backend, environment), *notes]


def _runnable(
    candidates: Sequence[Candidate], precision: Precision, environment: Environment
) -> tuple[list[Candidate], list[str]]:
    """The candidates whose files run on this processor, and notes on the others.

    Raises:
        CpuFeatureError: there are none.
    """
    able: list[Candidate] = []
    problems: dict[str, CpuFeatureError] = {}
    for candidate in candidates:
        backend = candidate.backend
        try:
            flags = backend.requirements(precision, environment).cpu_flags
            requirements.check_cpu(flags, f"{precision} with the {backend.name} backend", environment)
            able.append(candidate)
        except CpuFeatureError as error:
            problems.setdefault(backend.name, error)
    if not able:
        raise next(iter(problems.values()))
    return able, [f"{name} not tried: {error.found}" for name, error in problems.items()]


def _header_place(request: ExportRequest) -> AbstractContextManager[Workspace | None]:
    """The workspace of the C++ header, if one is asked for."""
    return nullcontext() if request.cpp_header is None else workspace(request.cpp_header, request.force)


def _load(request: ExportRequest, candidates: Sequence[Candidate], clock: StageClock) -> Source:
    with clock.stage("source") as notes:
        try:
            source = load_source(request, candidates[0].attention)
        except AttentionError:
            source = load_source(request)
        notes += [source.summary, source.tokenizer.note, *source.notes]
    return source


def _plan(request: ExportRequest, source: Source, clock: StageClock) -> tuple[TracePlan, Adapter]:
    with clock.stage("plan") as notes:
        plan, adapter = plan_and_adapt(source, request)
        notes += plan.choices
    return plan, adapter


def _plan_preprocessing(source: Source, plan: TracePlan, clock: StageClock) -> PreprocessingPlan:
    """What the file makes of pictures or sounds; nothing for a model of other data."""
    if source.image_processor is None and source.sounds is None:
        return PreprocessingPlan()
    with clock.stage("preprocessing") as notes:
        if source.sounds is not None:
            heard = plan_sounds(source.sounds, plan.inputs)
            notes += heard.notes
            return heard
        found = plan_pictures(source.image_processor, [spec.name for spec in plan.inputs])
        if found.preprocessor is not None:
            results, reasons = picture_results(source.image_processor, source.config, source.task.name)
            found = dataclasses.replace(found, results=results, notes=(*found.notes, *reasons))
        if source.task.prompted:
            prompts, reasons = picture_prompts(source.image_processor)
            found = dataclasses.replace(found, prompts=prompts, notes=(*found.notes, *reasons))
        notes += found.notes
    return found


def plan_and_adapt(source: Source, request: ExportRequest) -> tuple[TracePlan, Adapter]:
    """The plan, for images of the sizes that the folder's processor makes; if the model fails at these, for its own.

    Raises:
        ModelFailedError: the model fails at both; the error says why at the first.
        RequestError, TaskError: as `make_plan` and `adapt` do.
    """
    try:
        return _plan_inputs(source, request)
    except ModelFailedError as error:
        if not source.image_sizes or request.image_sizes:
            raise
        try:
            plan, adapter = _plan_inputs(dataclasses.replace(source, image_sizes=()), request)
        except ModelFailedError:
            raise error from None
        note = f"the model fails at {listed(source.image_sizes[:1])}, which its processor makes: {error.found}"
        return dataclasses.replace(plan, choices=(*plan.choices, note)), adapter


def _plan_inputs(source: Source, request: ExportRequest) -> tuple[TracePlan, Adapter]:
    """The plan with the model's main inputs; if the model fails with these, with all inputs that are known."""
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


def _try_sizes(request: ExportRequest, plan: TracePlan, adapter: Adapter, clock: StageClock) -> TracePlan:
    """For images: the plan for the example's size alone, if a trace keeps that size."""
    if "height" not in plan.dimensions:
        return plan
    with clock.stage("sizes") as notes:
        plan, tried = size_trial.with_kept_sizes(adapter, plan, request)
        notes += tried
    return plan


def _run_reference(
    request: ExportRequest, plan: TracePlan, adapter: Adapter, clock: StageClock
) -> tuple[TracePlan, list[VerificationCase], Tolerance]:
    """The original model's outputs at all shapes to verify; the plan without the sizes at which the model fails."""
    with clock.stage("reference") as notes:
        mode = request.verify
        if mode == "quick" and request.precision != "fp32" and experts.chooses(adapter):
            mode = "full"
            notes.append("more shapes, for a rounding may choose another expert")
        plan, cases = reference.reference_cases(adapter, plan, adapter.outputs, mode)
        notes.append(f"eager fp32 at {', '.join(case.name for case in cases)}")
        plan, tolerance = noise_floor.bounds(adapter, plan, cases, request)
    return plan, cases, tolerance


def _plan_decoding(request: ExportRequest, source: Source, plan: TracePlan, clock: StageClock) -> DecodingPlan | None:
    """The caches of a model that generates text, and what its written tokens are compared with."""
    if not source.task.generates:
        return None
    names = [spec.name for spec in plan.inputs]
    if names != ["input_ids"]:
        raise TaskError(
            f"model type {source.info.type!r} takes {', '.join(names)}",
            "input_ids alone, for text-generation",
            "choose --task text-generation-scoring",
        )
    with clock.stage("reference") as notes:
        sizes = cache_sizes(source.model)
        cases = [] if request.verify == "off" else generation_cases(source.model, plan)
        notes.append(f"{len(sizes)} layers keep keys and values; texts of {len(cases)} prompts by transformers")
    longest = plan.dimensions["sequence"].axis.maximum or LONGEST
    return DecodingPlan(Decoding(tuple(sizes), request.precision, longest), cases)


@dataclass(frozen=True)
class _Evaluation:
    """The labelled examples, and the original model's metrics on them."""

    examples: Labelled | Lines
    model_metrics: dict[str, float]


def _evaluate_model(
    request: ExportRequest, source: Source, plan: TracePlan, adapter: Adapter, clock: StageClock
) -> _Evaluation | None:
    if request.evaluate is None:
        return None
    if request.max_perplexity_rise is not None and not source.task.generates:
        raise RequestError(
            f"max_perplexity_rise is given and task is {source.task.name}", "max_perplexity_rise for text-generation"
        )
    with clock.stage("evaluate") as notes:
        examples = (read_lines if source.task.generates else read_labelled)(request.evaluate, source, plan)
        metrics = examples.model_metrics(adapter, adapter.outputs)
        notes.append(f"eager fp32 on {len(examples.rows)} examples of {request.evaluate}")
    return _Evaluation(examples, metrics)


def _prepare_samples(
    calibration_file: CalibrationFile | None,
    source: Source,
    plan: TracePlan,
    cases: Sequence[VerificationCase],
    adapter: Adapter,
    clock: StageClock,
) -> tuple[Sequence[Sample], list[Case]]:
    """For int8: the samples to calibrate with, and the original model's outputs for those that are held out."""
    if calibration_file is None:
        return (), []
    with clock.stage("samples") as notes:
        calibration = fit_calibration(calibration_file, plan, source.tokenizer)
        outputs = {spec.name: spec for spec in describe_outputs(plan, cases)}
        held_out = reference.held_out_cases(adapter, outputs, calibration.held_out)
        notes.append(calibration.summary)
    return calibration.samples, held_out


def _compare_images(request: ExportRequest, source: Source, built: BuildResult) -> list[str]:
    """Say whether the file takes the images that were asked for, or that the folder's processor makes."""
    images = [spec for spec in built.manifest.inputs if {"height", "width"} <= {axis.name for axis in spec.axes}]
    sizes = request.image_sizes or source.image_sizes
    if not sizes or not images:
        return []
    origin = "which were asked for" if request.image_sizes else "which the folder's processor makes"
    text, supported = describe_support(sizes, origin, images)
    if not supported:
        logger.warning("%s", text)
    return [text]


def _measure_accuracy(
    request: ExportRequest, built: BuildResult, held_out: Sequence[Case], place: Workspace, clock: StageClock
) -> BuildResult:
    if not held_out or request.verify == "off":
        return built
    with clock.stage("accuracy") as notes, place.writing():
        accuracy = verify.held_out_accuracy(built.file, built.manifest, held_out, request.allow_operators)
        notes += [one.summary for one in accuracy]
    return dataclasses.replace(built, manifest=dataclasses.replace(built.manifest, accuracy=accuracy))


def _evaluate_file(
    request: ExportRequest, evaluation: _Evaluation | None, built: BuildResult, place: Workspace, clock: StageClock
) -> Compared | None:
    """The file's metrics beside the model's; refused if they are lower by more than the request allows."""
    if evaluation is None:
        return None
    examples = evaluation.examples
    with clock.stage("evaluate") as notes, place.writing():
        file = built.file, built.manifest, examples.cases, request.allow_operators
        if isinstance(examples, Lines):
            found = examples.metrics(verify.file_likelihoods(*file))
        else:
            found = examples.score(verify.file_outputs(*file))
        metrics = examples.compare(evaluation.model_metrics, found, request)
        notes.append(metrics.summary)
    return metrics


@dataclass(frozen=True)
class _Published:
    """The finished file: its manifest, its size in bytes and its digest."""

    manifest: Manifest
    size: int
    sha256: str


def _publish(
    request: ExportRequest,
    source: Source,
    built: BuildResult,
    place: Workspace,
    header: Workspace | None,
    clock: StageClock,
) -> _Published:
    """Seal the file, load it once more as its users will, and rename it into place; then write the C++ header."""
    with clock.stage("publish") as notes, place.writing():
        manifest = artifact_file.seal(built.file, built.manifest, _parts(source, built), request.sign)
        if request.verify != "off":
            verify.confirm(built.file, request.allow_operators)
        published = _Published(manifest, built.file.stat().st_size, artifact_file.sha256(built.file))
        built.file.rename(place.draft)
        place.publish()
        if header is not None:
            with header.writing():
                header.draft.write_text(cpp_header(manifest, published.sha256, header.target.stem))
            header.publish()
        loaded = "not loaded again" if request.verify == "off" else "loaded once more as a consumer does"
        notes.append(f"sealed, {loaded}, renamed into place")
    return published


def _parts(source: Source, built: BuildResult) -> dict[str, bytes]:
    """What the file holds beside the code: golden cases, and the tokenizer if there is one."""
    limit = max(_GOLDEN_BYTES, int(_GOLDEN_SHARE * built.file.stat().st_size))
    stored = [case.golden for case in built.cases if not case.once]
    parts = {GOLDEN_FILE: dump_within(stored, limit)}
    if source.tokenizer.content is not None:
        parts[TOKENIZER_FILE] = source.tokenizer.content
    return parts
