"""What the gate compares with: inputs of many shapes and the original model's answers in eager fp32.

In: the adapter around the untouched model, a TracePlan, how much to try. Out: `Point`s, and the plan, narrowed to the
sizes that the model itself answers. Refuses (ModelFailedError) a model that fails by itself at its example; an answer
that does not fit the task is the describer's to refuse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from exporter.loading.model_errors import failing_by_name
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.narrowing import narrow, narrow_axis, with_axis
from exporter.shapes.test_shapes import Dimension, Trial, probes, trials
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import ModelFailedError
from runtime.format.golden import Case, sampled
from runtime.format.manifest import TensorSpec, Verification
from runtime.verification.accuracy import rows_of

# Numbers of one answer that are compared: a longest batch of fill-mask logits has 80 million, and the gate holds the
# answers at all shapes at once. Of a larger answer evenly spread ones are.
COMPARED = 2**22
# How often the plan may be narrowed before the model counts as failing.
_ROUNDS = 10


@dataclass(frozen=True)
class Point:
    """One shape to verify. Its case is stored in the artifact, large outputs as samples.

    `output_shapes` are those of the whole answers, of which the case may hold samples.
    """

    case: Case
    trial: Trial
    output_shapes: dict[str, tuple[int, ...]]
    # The case as files without work on padding answer it; None where that is the same.
    repeated: Case | None = None

    @property
    def without_padding(self) -> Point:
        """The same for such a file."""
        return self if self.repeated is None else dataclasses.replace(self, case=self.repeated, repeated=None)

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
        ModelFailedError: the model fails at its example or answers it in two ways, or no range of sizes is left.
    """
    _check_repeatable(adapter, plan)
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
        first = next(iter(failed.values()))
        narrowed = _narrowed_by_axis(adapter, plan, outputs, tried, failed)
        if narrowed is None:
            # No size is to blame alone.
            envelope = narrow(plan, tried, failed, retried=True)
            if envelope is None:
                raise first
            narrowed = _told(envelope.plan, envelope.given_up)
        plan = narrowed
    raise first


def probe_points(adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], first: int) -> list[Point]:
    """Points inside a narrowed plan, beyond those that it was narrowed by, numbered from `first` on.

    Raises:
        ModelFailedError: the model itself fails there.
    """
    tried = probes(plan.dimensions, plan.padded_axis, first)
    return [_point(adapter, plan, outputs, trial, first + seed) for seed, trial in enumerate(tried, 1)]


def held_out_cases(
    adapter: torch.nn.Module, outputs: Mapping[str, TensorSpec], samples: Sequence[Mapping[str, torch.Tensor]]
) -> list[Case]:
    """The original model's outputs for samples, as `runtime.verification.accuracy` compares them.

    Raises:
        ModelFailedError: the model fails on one.
    """
    cases = []
    for number, sample in enumerate(samples):
        with failing_by_name(f"held-out sample {number + 1}"), torch.no_grad():
            answers = adapter(**sample)
        named = zip(outputs.items(), answers, strict=True)
        cases.append(
            Case(f"{number:04}", sample, {name: rows_of(answer, spec, sample) for (name, spec), answer in named})
        )
    return cases


def _check_repeatable(adapter: torch.nn.Module, plan: TracePlan) -> None:
    """Refuse a model that answers the same inputs differently: nothing can be compared with it."""
    inputs = make_inputs(plan, plan.example).as_dict()
    with failing_by_name(plan.example_words), torch.no_grad():
        first = [tensor.clone() for tensor in adapter(**inputs)]
        second = adapter(**inputs)
    for once, again in zip(first, second, strict=True):
        if once.shape != again.shape or not torch.allclose(once, again, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ModelFailedError(
                "the original model answers the same inputs differently from call to call",
                "answers that depend on the inputs alone",
                "it draws random numbers or keeps a state; such a model cannot be exported",
            )


def _narrowed_by_axis(
    adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], tried: Sequence[Trial], failed: Collection[str]
) -> TracePlan | None:
    """The plan without the sizes at which the model fails while all others are the example's; None if it never does."""
    found = None
    for name, dimension in plan.dimensions.items():
        if dimension.fixed:
            continue

        def answers(size: int, name: str = name) -> bool:
            alone = Trial(f"00-{name}-{size}", plan.example | {name: size}, None)
            try:
                _point(adapter, plan, outputs, alone, 0)
            except ModelFailedError:
                return False
            return True

        good = {dimension.example} | {trial.shape[name] for trial in tried if trial.name not in failed}
        bad = {size for size in {trial.shape[name] for trial in tried} - good if not answers(size)}
        good |= {trial.shape[name] for trial in tried} - bad
        if bad:
            _sharpen(dimension, good, bad, answers)
            axis, lost = narrow_axis(dimension, good, bad)
            found = _told(with_axis(found or plan, axis), lost)
    return found


def _sharpen(dimension: Dimension, good: set[int], bad: set[int], answers: Callable[[int], bool]) -> None:
    """Find the very bounds, where all sizes beyond one are bad: by halving the gap."""
    step = dimension.axis.multiple
    for low, high in ((max(bad), min(good)), (max(good), min(bad))):
        while low < high and high - low > step:
            middle = dimension.within((low + high) // 2)
            if middle in (low, high):
                break
            works = answers(middle)
            (good if works else bad).add(middle)
            if works == (low in good):
                low = middle
            else:
                high = middle


def _told(plan: TracePlan, given_up: str) -> TracePlan:
    return dataclasses.replace(plan, choices=(*plan.choices, f"the model itself fails at {given_up}"))


def _point(adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], trial: Trial, seed: int) -> Point:
    inputs = make_inputs(plan, trial.shape, trial.lengths, seed=seed)
    # Not inference mode: tensors that a model caches (rotary tables) would then refuse the tracer.
    with failing_by_name(trial.name.partition("-")[2]), torch.no_grad():
        answers = adapter(**inputs.as_dict())
    # Clones: outputs may be views of larger tensors.
    named = {key: value.detach().clone() for key, value in zip(outputs, answers, strict=True)}
    if any(tensor.isnan().any() for tensor in named.values()):
        raise ModelFailedError(
            f"the original model answers with what is no number (NaN) at {trial.name.partition('-')[2]}",
            "numbers that can be compared",
        )
    case = sampled(Case(trial.name, inputs.as_dict(), named), COMPARED)
    repeated = _repeated(plan, trial, named)
    shapes = {key: tuple(value.shape) for key, value in named.items()}
    if repeated is None:
        return Point(case, trial, shapes)
    return Point(case, trial, shapes, sampled(Case(trial.name, inputs.as_dict(), repeated), COMPARED))


def _repeated(plan: TracePlan, trial: Trial, answers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The answers with each row's last real token at the places of padding; None where no output has such places."""
    if trial.lengths is None or plan.padded_axis != "sequence" or plan.padding_side != "right":
        return None
    size = (trial.shape["batch"], trial.shape["sequence"])
    axes = {output.name: output.axes[:2] for output in plan.task.outputs}
    found = {
        name for name, answer in answers.items() if axes.get(name) == ("batch", "sequence") and answer.shape[:2] == size
    }
    if not found:
        return None
    last = torch.minimum(torch.arange(size[1]), torch.tensor(trial.lengths).unsqueeze(1) - 1)
    rows = torch.arange(size[0]).unsqueeze(1)
    return {name: answer[rows, last] if name in found else answer for name, answer in answers.items()}
