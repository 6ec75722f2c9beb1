"""Build the manifest from what the stages know; what is measured later is still empty.

Outputs whose axes do not fit the task are refused.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import runtime
from exporter.backends.candidates import Candidate
from exporter.config.request import ExportRequest
from exporter.loading.generation_settings import GenerationSettings
from exporter.loading.loader import Source
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.reference import VerificationCase
from runtime.errors import TaskError
from runtime.format.manifest import (
    FORMAT_VERSION,
    Axis,
    CacheTensor,
    Execution,
    GenerationInfo,
    LateInteraction,
    Manifest,
    PicturePrompts,
    PictureResults,
    Preprocessing,
    Requirements,
    TensorSpec,
    TextInfo,
    Tolerance,
    longest_text,
)
from runtime.format.validation import PICTURE_LOGITS

logger = logging.getLogger("exporter")

# With optimisation by TorchScript the first call profiles, the second optimises, the third runs the result.
WARMUP_CALLS, WARMUP_CALLS_AS_IS = 3, 1
# Tokens of a row, for a model without a limit.
LONGEST = 2048
# Short, so that a warm-up is cheap; no axis may be 1 (docs/decisions/export.md).
WARMUP_SEQUENCE = 16


def draft_manifest(
    request: ExportRequest,
    source: Source,
    plan: TracePlan,
    candidate: Candidate,
    requires: Requirements,
    cases: Sequence[VerificationCase],
    tolerance: Tolerance,
    preprocessing: Preprocessing | None = None,
    pictures: PictureResults | None = None,
    prompts: PicturePrompts | None = None,
    caches: tuple[CacheTensor, ...] = (),
) -> Manifest:
    """The manifest of a file that has not been verified yet.

    Raises:
        TaskError: an output's axes do not follow the task.
    """
    outputs = describe_outputs(plan, cases)
    return Manifest(
        format_version=FORMAT_VERSION,
        exporter_version=runtime.__version__,
        task=plan.task.name,
        precision=request.precision,
        backend=candidate.backend.name,
        model=source.info,
        requires=requires,
        inputs=plan.inputs,
        outputs=outputs,
        labels=_labels(source.labels, outputs),
        activation=source.activation,
        fusions=(),
        tolerance=tolerance,
        verification=request.verify,
        verified=(),
        execution=_execution(plan, candidate.backend.optimised_at_run),
        text=_text(source.tokenizer.info, plan),
        parts=(),
        padded_output="repeated" if candidate.drop_padding else "computed",
        embedding=source.embedding,
        late_interaction=_late_interaction(source.late_interaction, plan),
        preprocessing=preprocessing,
        ctc=None if source.sounds is None else source.sounds.ctc,
        pictures=_pictures(pictures, plan.task.name, outputs),
        generation=_generation(source.generation, plan, caches),
        prompts=prompts,
    )


def _pictures(results: PictureResults | None, task: str, outputs: Sequence[TensorSpec]) -> PictureResults | None:
    """The results for pictures; None if the model's outputs have another number of classes than its configuration."""
    name, place = PICTURE_LOGITS.get(task, ("", 0))
    logits = next((spec for spec in outputs if spec.name == name), None)
    if results is None or logits is None:
        return None
    axis = logits.axes[place]
    count = len(results.classes) + (place == 2 and results.scores == "softmax")
    if not axis.minimum == axis.maximum == count:
        logger.warning("no results for pictures: the outputs have another number of classes than config.json names")
        return None
    return results


def _generation(
    settings: GenerationSettings | None, plan: TracePlan, caches: tuple[CacheTensor, ...]
) -> GenerationInfo | None:
    """How text is generated, within the lengths that the inputs admit."""
    if settings is None:
        return None
    longest = plan.dimensions["sequence"].axis.maximum or LONGEST
    return GenerationInfo(caches, longest, settings.stop_ids, settings.defaults, settings.chat)


def _text(info: TextInfo | None, plan: TracePlan) -> TextInfo | None:
    """The text settings, with a maximum length that the inputs admit."""
    sequence = plan.dimensions.get("sequence")
    if info is None or sequence is None:
        return info
    return dataclasses.replace(info, max_length=longest_text(info, sequence.axis))


def _late_interaction(sides: LateInteraction | None, plan: TracePlan) -> LateInteraction | None:
    """Both sides, with maximum lengths that the inputs admit.

    Raises:
        TaskError: the inputs are too short for what is added to queries.
    """
    sequence = plan.dimensions.get("sequence")
    if sides is None or sequence is None or sequence.axis.maximum is None:
        return sides
    most = sequence.axis.maximum
    if sides.query.expansion is not None and sides.query.expansion.length > most:
        raise TaskError(f"queries have {sides.query.expansion.length} tokens (query_expansion)", f"at most {most}")
    query, document = (
        dataclasses.replace(side, max_length=min(side.max_length, most)) for side in (sides.query, sides.document)
    )
    return dataclasses.replace(sides, query=query, document=document)


def _execution(plan: TracePlan, optimise: bool) -> Execution:
    return Execution((_warmup_shape(plan),), WARMUP_CALLS if optimise else WARMUP_CALLS_AS_IS, optimise)


def _labels(labels: Sequence[str], outputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """The labels, if there is one per output: some heads have a size of their own (the number of speakers)."""
    if not labels or {spec.axes[-1].maximum for spec in outputs} == {len(labels)}:
        return tuple(labels)
    logger.warning("left out %d labels of config.json: the outputs have another number of classes", len(labels))
    return ()


def _warmup_shape(plan: TracePlan) -> dict[str, int]:
    """Small, 2 or more along each axis, and supported."""
    wanted = {"batch": 2, "sequence": WARMUP_SEQUENCE}
    return {
        name: dimension.within(wanted[name]) if name in wanted else dimension.within(dimension.axis.minimum)
        for name, dimension in plan.dimensions.items()
    }


def describe_outputs(plan: TracePlan, cases: Sequence[VerificationCase]) -> tuple[TensorSpec, ...]:
    """The outputs' axes: names from the task, sizes as they were measured."""
    named = {output.name: output.axes for output in plan.task.outputs}
    specs = []
    for output, first in cases[0].output_shapes.items():
        shapes = [case.output_shapes[output] for case in cases]
        if len({len(shape) for shape in shapes}) > 1:
            raise TaskError(
                f"output {output} has shape {list(first)}, and another number of axes for inputs of other sizes",
                "a fixed number of axes",
                "this model cannot be exported for this task",
            )
        sizes = [[shape[position] for shape in shapes] for position in range(len(first))]
        names = named.get(output, ())
        if len(names) != len(first) or (plan.task.whole and not _follows(plan, cases, names, sizes)):
            if not plan.task.whole:
                raise TaskError(
                    f"output {output} has shape {list(first)}",
                    f"{len(names)} axes",
                    "this model's output does not fit the task",
                )
            names = _named_by_size(plan, cases, output, sizes)
        axes = tuple(_axis(plan, cases, output, name, found) for name, found in zip(names, sizes, strict=True))
        specs.append(TensorSpec(output, "float32", axes))
    return tuple(specs)


def _follows(
    plan: TracePlan, cases: Sequence[VerificationCase], names: Sequence[str], sizes: Sequence[Sequence[int]]
) -> bool:
    """Whether the axes that are named like an axis of the inputs have its sizes."""
    return all(
        name not in plan.dimensions or list(found) == [case.shape[name] for case in cases]
        for name, found in zip(names, sizes, strict=True)
    )


def _named_by_size(
    plan: TracePlan, cases: Sequence[VerificationCase], output: str, sizes: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """Names for axes that the task does not name: that of an input axis with the same sizes, else a number."""
    names: list[str] = []
    for position, found in enumerate(sizes):
        same = (
            name
            for name, dimension in plan.dimensions.items()
            if not dimension.fixed and name not in names and [case.shape[name] for case in cases] == list(found)
        )
        names.append(next(same, f"{output}_{position}"))
    return tuple(names)


def _axis(plan: TracePlan, cases: Sequence[VerificationCase], output: str, name: str, sizes: Sequence[int]) -> Axis:
    dimension = plan.dimensions.get(name)
    if dimension is not None:
        expected = [case.shape[name] for case in cases]
        if list(sizes) != expected:
            raise TaskError(
                f"output {output} has sizes {list(sizes)} along its {name} axis", f"{expected}, for {plan.task.name}"
            )
        return dimension.axis
    if len(set(sizes)) == 1:
        return Axis(name, sizes[0], sizes[0])
    # Depends on the inputs' sizes by a rule of the model: frames of audio, a grid of patches.
    return Axis(name, 1, None)
