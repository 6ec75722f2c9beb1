"""Describe an artifact: from what the stages know to the manifest.

In: the request, the source, the plan, what the backend needs, the reference points. Out: `Manifest`, its measured
parts still empty. Refuses outputs whose axes do not follow the task.
"""

from __future__ import annotations

from collections.abc import Sequence

import runtime
from exporter.plan import TracePlan
from exporter.reference import Point
from exporter.request import ExportRequest
from exporter.source import Source
from exporter.tasks import TOLERANCES
from runtime.errors import TaskError
from runtime.manifest import FORMAT_VERSION, Axis, Backend, Execution, Manifest, Requirements, TensorSpec

# The first call profiles, the second optimises, the third runs what the second made.
WARMUP_CALLS = 3
# A warm-up is cheap when short, and must not be 1 along any axis (docs/decisions.md, shapes of size 1).
WARMUP_SEQUENCE = 16


def draft_manifest(
    request: ExportRequest,
    source: Source,
    plan: TracePlan,
    backend: Backend,
    requires: Requirements,
    points: Sequence[Point],
) -> Manifest:
    """The manifest of a file that has not been verified yet.

    Raises:
        TaskError: an output's axes do not follow the task.
    """
    return Manifest(
        format_version=FORMAT_VERSION,
        exporter_version=runtime.__version__,
        task=plan.task.name,
        precision=request.precision,
        backend=backend,
        model=source.info,
        requires=requires,
        inputs=plan.inputs,
        outputs=_outputs(plan, points),
        labels=source.labels,
        activation=source.activation,
        fusions=(),
        tolerance=TOLERANCES[request.precision, plan.task.kind],
        verification=request.verify,
        verified=(),
        execution=Execution((_warmup_shape(plan.inputs),), WARMUP_CALLS),
        text=source.tokenizer.info,
        parts=(),
    )


def _warmup_shape(inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """Small, 2 or more along each axis, and inside what the inputs admit."""
    wanted = {"batch": 2, "sequence": WARMUP_SEQUENCE}
    return {
        axis.name: max(axis.minimum, min(wanted[axis.name], axis.maximum or wanted[axis.name]))
        for spec in inputs
        for axis in spec.axes
    }


def _outputs(plan: TracePlan, points: Sequence[Point]) -> tuple[TensorSpec, ...]:
    dynamic = {axis.name: axis for spec in plan.inputs for axis in spec.axes}
    names = {output.name: output.axes for output in plan.task.outputs}
    specs = []
    for output in points[0].case.outputs:
        axes = []
        for position, axis in enumerate(names[output]):
            sizes = [_size(point.output_shapes[output], position, len(names[output]), output) for point in points]
            expected = [point.shape[axis] for point in points] if axis in dynamic else sizes[:1] * len(sizes)
            if sizes != expected:
                raise TaskError(
                    f"output {output} has sizes {sizes} along its {axis} axis", f"{expected}, for {plan.task.name}"
                )
            axes.append(dynamic.get(axis) or Axis(axis, sizes[0], sizes[0]))
        specs.append(TensorSpec(output, "float32", tuple(axes)))
    return tuple(specs)


def _size(shape: Sequence[int], position: int, rank: int, name: str) -> int:
    if len(shape) != rank:
        raise TaskError(
            f"output {name} has shape {list(shape)}", f"{rank} axes", "this model's answer does not fit the task"
        )
    return shape[position]
