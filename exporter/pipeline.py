"""export(): the straight line from a request to a verified file.

In: an ExportRequest, and an observer of the stages. Out: a `Report`; the file stands at its place, or nothing has
changed there. Refuses with an error of `runtime.errors`, whatever the stage. The only module that imports
the stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from exporter.backends.candidates import candidates
from exporter.calibration.dataset import read_calibration
from exporter.calibration.sampling import Sample, fit_calibration
from exporter.config.request import ExportRequest
from exporter.evaluation.comparison import read_labelled
from exporter.loading.loader import Source, load_source
from exporter.loading.third_party_logs import third_parties_quiet
from exporter.packaging.cpp_header import cpp_header
from exporter.packaging.manifest_builder import describe_outputs
from exporter.packaging.operator_check import check_allowed
from exporter.packaging.report import Observer, Report, StageClock, StageEvent
from exporter.packaging.staging import Workspace, workspace
from exporter.selection.candidate_search import Attempts
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import TracePlan, make_plan
from exporter.tracing.adapter import Adapter, adapt
from exporter.verification import noise_floor, reference, verify
from runtime.artifact import artifact_file, signing
from runtime.errors import ModelFailedError
from runtime.format.golden import Case, dump_cases, sampled
from runtime.format.manifest import GOLDEN_FILE, TOKENIZER_FILE
from runtime.host import requirements


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
    here, allow = requirements.detect(), request.allow_operators
    check_allowed(allow)
    ways = candidates(request.backend, here, request.tune, request.precision, request.padding)
    requires = ways[0].backend.requirements(request.precision, here)
    requirements.check_cpu(requires.cpu_flags, f"{request.precision} with the {ways[0].backend.name} backend", here)
    if request.sign is not None:
        signing.check_private_key(request.sign)
    given = read_calibration(request.calibration) if request.calibration is not None else None
    with third_parties_quiet(), workspace(request.output, request.force) as place, _header(request) as header:
        clock = StageClock(observe)
        with clock.stage("source") as say:
            source = load_source(request)
            say += [source.summary, source.tokenizer.note, *source.notes]
        with clock.stage("plan") as say:
            plan, adapter = plan_and_adapt(source, request)
            say += plan.choices
        with clock.stage("reference") as say:
            # Before any backend: it may change the model in place, and IPEX replaces PyTorch's own kernels.
            plan, points = reference.reference_points(adapter, plan, adapter.outputs, request.verify)
            say.append(f"eager fp32 at {', '.join(point.name for point in points)}")
            plan, tolerance = noise_floor.bounds(adapter, plan, points, request)
        labelled, expected = None, dict[str, float]()
        if request.evaluate is not None:
            with clock.stage("evaluate") as say:
                labelled = read_labelled(request.evaluate, source, plan)
                expected = labelled.answered_by(adapter, adapter.outputs)
                say.append(f"eager fp32 on {len(labelled.rows)} examples of {request.evaluate}")
        samples, held_out = tuple[Sample, ...](), list[Case]()
        if given is not None:
            with clock.stage("samples") as say:
                calibration = fit_calibration(given, plan, source.tokenizer)
                outputs = {spec.name: spec for spec in describe_outputs(plan, points)}
                held_out = reference.held_out_cases(adapter, outputs, calibration.held_out)
                samples = calibration.samples
                say.append(calibration.words)
        attempts = Attempts(request, here, source, adapter, plan, points, tolerance, place, clock, samples)
        # From here on the attempts own the model.
        del adapter
        built = attempts.first_sound(ways)
        if held_out and request.verify != "off":
            with clock.stage("accuracy") as say, place.writing():
                accuracy = verify.held_out_accuracy(built.file, built.manifest, held_out, allow)
                built = dataclasses.replace(built, manifest=dataclasses.replace(built.manifest, accuracy=accuracy))
                say += [one.summary for one in accuracy]
        metrics = None
        if labelled is not None:
            with clock.stage("evaluate") as say, place.writing():
                found = labelled.score(verify.answers(built.file, built.manifest, labelled.cases, allow))
                metrics = labelled.compare(expected, found, request)
                say.append(metrics.words)
        with clock.stage("publish") as say, place.writing():
            sealed = artifact_file.seal(built.file, built.manifest, _parts(source, built.points), request.sign)
            if request.verify != "off":
                verify.confirm(built.file, allow)
            digest, size = artifact_file.sha256(built.file), built.file.stat().st_size
            built.file.rename(place.draft)
            place.publish()
            if header is not None:
                with header.writing():
                    header.draft.write_text(cpp_header(sealed, digest, header.target.stem))
                header.publish()
            checked = "not tried" if request.verify == "off" else "loaded once more as a consumer does"
            say.append(f"sealed, {checked}, renamed into place")
    return Report(
        output=str(request.output),
        size=size,
        sha256=digest,
        example_inputs=built.form,
        stages=tuple(clock.events),
        choices=(*source.notes, *plan.choices, *attempts.choices, *built.choices),
        findings=built.findings,
        manifest=sealed,
        metrics=metrics,
    )


def _header(request: ExportRequest) -> AbstractContextManager[Workspace | None]:
    """The place of the C++ header, where one is asked for: refused early for the same reasons as the output."""
    return nullcontext() if request.cpp_header is None else workspace(request.cpp_header, request.force)


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


def _parts(source: Source, points: Sequence[reference.Point]) -> dict[str, bytes]:
    """What lies beside the code: cases to check with, and the tokenizer where there is one."""
    parts = {GOLDEN_FILE: dump_cases([sampled(point.case) for point in points])}
    if source.tokenizer.content is not None:
        parts[TOKENIZER_FILE] = source.tokenizer.content
    return parts
