"""What the gate compares with: inputs of many shapes and the original model's answers in eager fp32.

In: the adapter around the untouched model, a TracePlan, how much to try. Out: `Point`s, and the plan, narrowed to the
sizes that the model itself answers. Refuses (ModelFailedError) a model that fails by itself at its example; an answer
that does not fit the task is the describer's to refuse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from exporter.envelope import narrow
from exporter.failures import failing_by_name
from exporter.inputs import make_inputs
from exporter.plan import TracePlan
from exporter.shapes import Trial, trials
from runtime.errors import ModelFailedError
from runtime.golden import Case, sampled
from runtime.manifest import Verification

# Numbers of one answer that are compared: a longest batch of fill-mask logits has 80 million, and the gate holds the
# answers at all shapes at once. Of a larger answer evenly spread ones are.
COMPARED = 2**22
# How often the plan may be narrowed before the model counts as failing.
_ROUNDS = 6


@dataclass(frozen=True)
class Point:
    """One shape to verify. Its case is stored in the artifact, large outputs as samples.

    `output_shapes` are those of the whole answers, of which the case may hold samples.
    """

    case: Case
    trial: Trial
    output_shapes: dict[str, tuple[int, ...]]

    @property
    def shape(self) -> dict[str, int]:
        """Size by axis."""
        return dict(self.trial.shape)

    @property
    def padded(self) -> bool:
        """Whether rows of several lengths are in it."""
        return self.trial.padded

    @property
    def name(self) -> str:
        """The shape, for people."""
        return self.trial.name.partition("-")[2]


def reference_points(
    adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], mode: Verification
) -> tuple[TracePlan, list[Point]]:
    """Shapes, inputs and the answers of the original model: run this before any backend touches it.

    Sizes at which the model itself fails are taken out of the plan, which then says so. With `off` only the golden
    cases are made.

    Raises:
        ModelFailedError: the model fails at its example, or no range of sizes is left.
    """
    for _ in range(_ROUNDS):
        points: list[Point] = []
        failed: dict[str, ModelFailedError] = {}
        tried = trials(plan.dimensions, plan.padded_axis, mode)
        for seed, trial in enumerate(tried, 1):
            try:
                points.append(_point(adapter, plan, outputs, trial, seed))
            except ModelFailedError as error:
                failed[trial.name] = error
        if not failed:
            return plan, points
        narrowed = narrow(plan, tried, failed, retried=True)
        first = next(iter(failed.values()))
        if narrowed is None:
            raise first
        words = f"the model itself fails at {narrowed.given_up}"
        plan = dataclasses.replace(narrowed.plan, choices=(*plan.choices, words))
    raise first


def _point(adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], trial: Trial, seed: int) -> Point:
    inputs = make_inputs(plan, trial.shape, trial.lengths, seed=seed)
    # Not inference mode: tensors that a model caches (rotary tables) would then refuse the tracer.
    with failing_by_name(trial.name.partition("-")[2]), torch.no_grad():
        answers = adapter(**inputs.as_dict())
    # Clones: outputs may be views of larger tensors.
    named = {key: value.detach().clone() for key, value in zip(outputs, answers, strict=True)}
    case = sampled(Case(trial.name, inputs.as_dict(), named), COMPARED)
    return Point(case, trial, {key: tuple(value.shape) for key, value in named.items()})
