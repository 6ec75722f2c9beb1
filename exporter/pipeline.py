"""export(): the straight line from a request to a verified file.

In: an ExportRequest, and an observer of the stages. Out: a `Report`; the file stands at its place, or nothing has
changed there. Refuses with an error of `runtime.errors`, whatever the stage. The only module that imports
the stages.
"""

from __future__ import annotations

import dataclasses

from exporter import verify
from exporter.adapter import adapt
from exporter.backends import choose_backend
from exporter.describe import draft_manifest
from exporter.inputs import make_inputs
from exporter.plan import make_plan
from exporter.quiet import third_parties_quiet
from exporter.report import Observer, Report, StageClock, StageEvent
from exporter.request import ExportRequest
from exporter.source import load_source
from exporter.trace import trace
from exporter.workspace import workspace
from runtime import artifact, environment
from runtime.golden import dump_cases
from runtime.manifest import GOLDEN_FILE, TOKENIZER_FILE


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
    clock = StageClock(observe)
    here = environment.detect()
    backend, backend_reason = choose_backend(request.backend, here)
    requires = backend.requirements(request.precision, here)
    environment.check_cpu(requires.cpu_flags, f"{request.precision} with the {backend.name} backend", here)

    with third_parties_quiet(), workspace(request.output, request.force) as place:
        with clock.stage("source") as say:
            source = load_source(request)
            say += [source.summary, source.tokenizer.note]
        with clock.stage("plan") as say:
            plan = make_plan(source, request)
            say += plan.choices
        with clock.stage("reference") as say:
            # Before the backend: it may change the model in place, and IPEX replaces PyTorch's own kernels.
            adapter = adapt(source, plan)
            points = verify.reference_points(adapter, plan, adapter.outputs)
            manifest = draft_manifest(request, source, plan, backend.name, requires, points)
            say.append(f"eager fp32 at {', '.join(point.name for point in points)}")
        with clock.stage("backend") as say:
            module = backend.optimise(adapter, request.precision)
            say.append(f"{backend.name}: {backend_reason}; {request.precision}")
        with clock.stage("trace") as say:
            example = make_inputs(plan, plan.batch, plan.sequence)
            traced = trace(module, example, request.example_inputs, backend.autocast(request.precision))
            say.append(f"{traced.form} example inputs, {plan.batch}x{plan.sequence}")
        with clock.stage("save") as say, place.writing():
            parts = {GOLDEN_FILE: dump_cases([point.case for point in points if point.golden])}
            if source.tokenizer.content is not None:
                parts[TOKENIZER_FILE] = source.tokenizer.content
            artifact.save(traced.module, place.draft, parts)
            say.append(f"{place.draft.stat().st_size / 1e6:.1f} MB")
        with clock.stage("verify") as say, place.writing():
            outcome = verify.verify(place.draft, manifest, points)
            say.append(f"{len(points)} shapes, {outcome.calls} calls each, in a fresh process; {outcome.summary}")
        with clock.stage("publish") as say, place.writing():
            fusions = backend.fusions(outcome.operators)
            manifest = dataclasses.replace(manifest, verified=outcome.points, fusions=fusions)
            artifact.seal(place.draft, manifest)
            verify.confirm(place.draft)
            digest, size = artifact.sha256(place.draft), place.draft.stat().st_size
            place.publish()
            say.append("sealed, loaded once more as a consumer does, renamed into place")
    return Report(
        str(request.output), size, digest, traced.form, tuple(clock.events), plan.choices, traced.warnings, manifest
    )
