"""Describe an artifact: from what the stages know to the manifest.

In: the request, the source, the plan, the candidate and what it needs, the reference points. Out: `Manifest`, its
measured parts still empty. Refuses outputs whose axes do not follow the task.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import runtime
from exporter.backends import Candidate
from exporter.plan import TracePlan
from exporter.reference import Point
from exporter.request import ExportRequest
from exporter.source import Source
from runtime.errors import TaskError
from runtime.manifest import (
    FORMAT_VERSION,
    Axis,
    Execution,
    Manifest,
    Requirements,
    TensorSpec,
    TextInfo,
    Tolerance,
    longest_text,
)

logger = logging.getLogger("exporter")

# The first call profiles, the second optimises, the third runs what the second made. Without that, one does all.
WARMUP_CALLS, WARMUP_CALLS_AS_IS = 3, 1
# A warm-up is cheap when short, and must not be 1 along any axis (docs/decisions/export.md).
WARMUP_SEQUENCE = 16


def draft_manifest(
    request: ExportRequest,
    source: Source,
    plan: TracePlan,
    way: Candidate,
    requires: Requirements,
    points: Sequence[Point],
    tolerance: Tolerance,
) -> Manifest:
    """The manifest of a file that has not been verified yet.

    Raises:
        TaskError: an output's axes do not follow the task.
    """
    outputs = describe_outputs(plan, points)
    return Manifest(
        format_version=FORMAT_VERSION,
        exporter_version=runtime.__version__,
        task=plan.task.name,
        precision=request.precision,
        backend=way.backend.name,
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
        execution=_execution(plan, way.backend.optimised_at_run),
        text=_text(source.tokenizer.info, plan),
        parts=(),
        padded_output="repeated" if way.drop_padding else "computed",
    )


def _text(info: TextInfo | None, plan: TracePlan) -> TextInfo | None:
    """The tokenizer's part, its longest text one that the inputs admit."""
    sequence = plan.dimensions.get("sequence")
    if info is None or sequence is None:
        return info
    return dataclasses.replace(info, max_length=longest_text(info, sequence.axis))


def _execution(plan: TracePlan, optimise: bool) -> Execution:
    return Execution((_warmup_shape(plan),), WARMUP_CALLS if optimise else WARMUP_CALLS_AS_IS, optimise)


def _labels(labels: Sequence[str], outputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """The labels, where they name the outputs: some heads count by a setting of their own (speakers), not by labels."""
    if not labels or {spec.axes[-1].maximum for spec in outputs} == {len(labels)}:
        return tuple(labels)
    logger.warning("left out %d labels of config.json: the outputs have another number of classes", len(labels))
    return ()


def _warmup_shape(plan: TracePlan) -> dict[str, int]:
    """Small, 2 or more along each axis, and inside what the inputs admit."""
    wanted = {"batch": 2, "sequence": WARMUP_SEQUENCE}
    return {
        name: dimension.within(wanted[name]) if name in wanted else dimension.within(dimension.axis.minimum)
        for name, dimension in plan.dimensions.items()
    }


def describe_outputs(plan: TracePlan, points: Sequence[Point]) -> tuple[TensorSpec, ...]:
    """The outputs' axes: of the task where it names them, and their sizes as they were measured."""
    named = {output.name: output.axes for output in plan.task.outputs}
    specs = []
    for output, first in points[0].output_shapes.items():
        shapes = [point.output_shapes[output] for point in points]
        if len({len(shape) for shape in shapes}) > 1:
            raise TaskError(
                f"output {output} has shape {list(first)}, and another number of axes at other sizes of the inputs",
                "a fixed number of axes",
                "this model cannot be exported for this task",
            )
        sizes = [[shape[position] for shape in shapes] for position in range(len(first))]
        names = named.get(output, ())
        if len(names) != len(first) or (plan.task.whole and not _follows(plan, points, names, sizes)):
            if not plan.task.whole:
                raise TaskError(
                    f"output {output} has shape {list(first)}",
                    f"{len(names)} axes",
                    "this model's answer does not fit the task",
                )
            names = _named_by_size(plan, points, output, sizes)
        axes = tuple(_axis(plan, points, output, name, found) for name, found in zip(names, sizes, strict=True))
        specs.append(TensorSpec(output, "float32", axes))
    return tuple(specs)


def _follows(plan: TracePlan, points: Sequence[Point], names: Sequence[str], sizes: Sequence[Sequence[int]]) -> bool:
    """Whether the axes that the task names have the inputs' sizes."""
    return all(
        name not in plan.dimensions or list(found) == [point.shape[name] for point in points]
        for name, found in zip(names, sizes, strict=True)
    )


def _named_by_size(
    plan: TracePlan, points: Sequence[Point], output: str, sizes: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """Names for axes that no task names: of the inputs' axis with the same size at every shape, else the position."""
    names: list[str] = []
    for position, found in enumerate(sizes):
        same = (
            name
            for name, dimension in plan.dimensions.items()
            if not dimension.fixed and name not in names and [point.shape[name] for point in points] == list(found)
        )
        names.append(next(same, f"{output}_{position}"))
    return tuple(names)


def _axis(plan: TracePlan, points: Sequence[Point], output: str, name: str, sizes: Sequence[int]) -> Axis:
    dimension = plan.dimensions.get(name)
    if dimension is not None:
        expected = [point.shape[name] for point in points]
        if list(sizes) != expected:
            raise TaskError(
                f"output {output} has sizes {list(sizes)} along its {name} axis", f"{expected}, for {plan.task.name}"
            )
        return dimension.axis
    if len(set(sizes)) == 1:
        return Axis(name, sizes[0], sizes[0])
    # Follows the inputs' sizes in a way of the model's own: frames of audio, a grid of patches.
    return Axis(name, 1, None)
