"""The cases to verify with: inputs of many shapes, and the original model's outputs for them in eager fp32.

If the original model fails at a size, that size is removed from the plan's supported range; if it fails at the traced
example itself, it is refused (ModelFailedError).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.loading.model_errors import named_model_errors
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.narrowing import STEPS, narrow, narrow_axis, with_axis
from exporter.shapes.test_shapes import Dimension, TestShape, probe_shapes, shapes_to_verify
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import ModelFailedError
from runtime.format.golden import Case, sampled
from runtime.format.manifest import TensorSpec, Verification
from runtime.verification.accuracy import rows_of

# How many numbers of one output are compared: fill-mask logits of a longest batch are 80 million, and verification
# holds the outputs of all cases at once. Of larger outputs, evenly spread numbers are compared.
COMPARED = 2**22
# How often the plan may be narrowed before the model counts as failing.
_ROUNDS = 10


@dataclass(frozen=True)
class VerificationCase:
    """One shape to verify, with its inputs and expected outputs.

    `golden` is stored in the artifact, large outputs as samples; `output_shapes` are the shapes of the whole outputs.
    """

    golden: Case
    test_shape: TestShape
    output_shapes: dict[str, tuple[int, ...]]
    # The expected outputs of files that skip padding; None if they are the same.
    repeated: Case | None = None

    @property
    def without_padding(self) -> VerificationCase:
        """The same case for a file that skips padding."""
        return self if self.repeated is None else dataclasses.replace(self, golden=self.repeated, repeated=None)

    @property
    def shape(self) -> dict[str, int]:
        """Size by axis."""
        return dict(self.test_shape.shape)

    @property
    def padded(self) -> bool:
        """Whether its rows have different lengths."""
        return self.test_shape.padded

    @property
    def once(self) -> bool:
        """Whether it is called once, and not stored."""
        return self.test_shape.once

    @property
    def name(self) -> str:
        """The shape, for people."""
        return self.test_shape.name.partition("-")[2]


def reference_cases(
    adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], mode: Verification
) -> tuple[TracePlan, list[VerificationCase]]:
    """The cases for a verification mode. Run this before any backend changes the model.

    Sizes at which the model itself fails are removed from the plan, whose choices then say so. With `off` only the
    golden cases are made.

    Raises:
        ModelFailedError: the model fails at its example or is not deterministic, or no range of sizes is left.
    """
    _check_repeatable(adapter, plan)
    known: dict[tuple[Any, ...], VerificationCase] = {}
    for _ in range(_ROUNDS):
        failed: dict[str, ModelFailedError] = {}
        shapes = shapes_to_verify(plan.dimensions, plan.padded_axis, mode, plan.images)
        for seed, test_shape in enumerate(shapes, 1):
            key = _key(plan, test_shape)
            try:
                known[key] = known.get(key) or verification_case(adapter, plan, outputs, test_shape, seed)
            except ModelFailedError as error:
                failed[test_shape.name] = error
        if not failed:
            return plan, [known[_key(plan, test_shape)] for test_shape in shapes]
        first = next(iter(failed.values()))
        narrowed = _narrowed_by_axis(adapter, plan, outputs, shapes, failed)
        if narrowed is None:
            # No single axis explains the failures.
            supported = narrow(plan, shapes, failed, retried=True)
            if supported is None:
                raise first
            narrowed = _with_note(supported.plan, supported.excluded)
        plan = narrowed
    raise first


def _key(plan: TracePlan, test_shape: TestShape) -> tuple[Any, ...]:
    """What a case depends on: that of a narrowed plan is often the same, and takes long to compute again."""
    inputs = tuple((spec.name, spec.values) for spec in plan.inputs)
    return test_shape.name, tuple(test_shape.shape.items()), test_shape.lengths, plan.padded_axis, inputs


def probe_cases(
    adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], first: int
) -> list[VerificationCase]:
    """Further cases inside a narrowed plan, numbered from `first` on.

    Raises:
        ModelFailedError: the model itself fails there.
    """
    shapes = probe_shapes(plan.dimensions, plan.padded_axis, first)
    return [
        verification_case(adapter, plan, outputs, test_shape, first + seed) for seed, test_shape in enumerate(shapes, 1)
    ]


def held_out_cases(
    adapter: torch.nn.Module, outputs: Mapping[str, TensorSpec], samples: Sequence[Mapping[str, torch.Tensor]]
) -> list[Case]:
    """The original model's outputs for samples, as `runtime.verification.accuracy` compares them.

    Raises:
        ModelFailedError: the model fails on one.
    """
    cases = []
    for number, sample in enumerate(samples):
        with named_model_errors(f"held-out sample {number + 1}"), torch.no_grad():
            found = adapter(**sample)
        named = zip(outputs.items(), found, strict=True)
        cases.append(
            Case(f"{number:04}", sample, {name: rows_of(output, spec, sample) for (name, spec), output in named})
        )
    return cases


def _check_repeatable(adapter: torch.nn.Module, plan: TracePlan) -> None:
    """Refuse a model that gives different outputs for the same inputs: nothing can be compared with it."""
    inputs = make_inputs(plan, plan.example).as_dict()
    with named_model_errors(plan.example_sizes), torch.no_grad():
        first = [tensor.clone() for tensor in adapter(**inputs)]
        second = adapter(**inputs)
    for once, again in zip(first, second, strict=True):
        if once.shape != again.shape or not torch.allclose(once, again, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ModelFailedError(
                "the original model gives different outputs for the same inputs from call to call",
                "outputs that depend only on the inputs",
                "it draws random numbers or keeps a state; such a model cannot be exported",
            )


def _narrowed_by_axis(
    adapter: torch.nn.Module,
    plan: TracePlan,
    outputs: Sequence[str],
    shapes: Sequence[TestShape],
    failed: Collection[str],
) -> TracePlan | None:
    """The plan without the sizes at which the model fails although all other axes have the example's; None if none."""
    found = None
    for name, dimension in plan.dimensions.items():
        if dimension.fixed:
            continue

        def works(size: int, name: str = name) -> bool:
            # Images take long, and one is enough, unless it is their number that is tried.
            rows = {"batch": plan.dimensions["batch"].within(1)} if "height" in plan.dimensions else {}
            alone = TestShape(f"00-{name}-{size}", plan.example | rows | {name: size}, None)
            try:
                verification_case(adapter, plan, outputs, alone, 0)
            except ModelFailedError:
                return False
            return True

        good = {dimension.example} | {test_shape.shape[name] for test_shape in shapes if test_shape.name not in failed}
        bad = {size for size in {test_shape.shape[name] for test_shape in shapes} - good if not works(size)}
        good |= {test_shape.shape[name] for test_shape in shapes} - bad
        if bad:
            if name in ("height", "width"):
                _find_step(dimension, good, bad, works)
            axis, excluded = narrow_axis(dimension, good, bad)
            if axis.multiple == dimension.axis.multiple:
                _find_bounds(dimension, good, bad, works)
                axis, excluded = narrow_axis(dimension, good, bad)
            found = _with_note(with_axis(found or plan, axis), excluded)
    return found


def _find_step(dimension: Dimension, good: set[int], bad: set[int], works: Callable[[int], bool]) -> None:
    """Add a size to `bad` that a smaller step than the model's would admit, and those before it to `good`.

    Most image models that fail at some sizes want multiples, of the strides of their stages; looking for bounds first
    would call them at a dozen sizes.
    """
    for step in reversed(STEPS):
        size = dimension.example - step
        if dimension.example % step or size < dimension.axis.minimum or size % dimension.axis.multiple:
            continue
        right = works(size)
        (good if right else bad).add(size)
        if not right:
            return


def _find_bounds(dimension: Dimension, good: set[int], bad: set[int], works: Callable[[int], bool]) -> None:
    """Add sizes to `good` and `bad` until they meet, by bisection, if all sizes beyond a bound are bad."""
    step = dimension.axis.multiple
    for low, high in ((max(bad), min(good)), (max(good), min(bad))):
        while low < high and high - low > step:
            middle = dimension.within((low + high) // 2)
            if middle in (low, high):
                break
            right = works(middle)
            (good if right else bad).add(middle)
            if right == (low in good):
                low = middle
            else:
                high = middle


def _with_note(plan: TracePlan, excluded: str) -> TracePlan:
    return dataclasses.replace(plan, choices=(*plan.choices, f"the model itself fails at {excluded}"))


def verification_case(
    adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], test_shape: TestShape, seed: int
) -> VerificationCase:
    """The original model's outputs at one shape.

    Raises:
        ModelFailedError: it fails there.
    """
    inputs = make_inputs(plan, test_shape.shape, test_shape.lengths, seed=seed)
    # Not inference mode: tensors that a model caches in it (rotary tables) cannot be traced later.
    with named_model_errors(test_shape.name.partition("-")[2]), torch.no_grad():
        found = adapter(**inputs.as_dict())
    # Clones: outputs may be views of larger tensors.
    named = {key: value.detach().clone() for key, value in zip(outputs, found, strict=True)}
    if any(tensor.isnan().any() for tensor in named.values()):
        raise ModelFailedError(
            f"the original model's outputs contain NaN at {test_shape.name.partition('-')[2]}",
            "numbers that can be compared",
        )
    repeated = repeated_at_padding(plan, test_shape.shape, test_shape.lengths, named)

    def compared(expected: dict[str, torch.Tensor]) -> Case:
        return sampled(Case(test_shape.name, inputs.as_dict(), expected, recipes=inputs.recipes), COMPARED)

    return VerificationCase(
        golden=compared(named),
        test_shape=test_shape,
        output_shapes={key: tuple(value.shape) for key, value in named.items()},
        repeated=None if repeated is None else compared(repeated),
    )


def repeated_at_padding(
    plan: TracePlan, shape: Mapping[str, int], lengths: Sequence[int] | None, outputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | None:
    """The outputs with each row's last real token repeated at its padded positions; None if no output has positions.

    Args:
        plan: of the export.
        shape: size by axis.
        lengths: of the rows; None if none is padded.
        outputs: of the model, by name.
    """
    if lengths is None or plan.padded_axis != "sequence" or plan.padding_side != "right":
        return None
    size = (shape["batch"], shape["sequence"])
    axes = {output.name: output.axes[:2] for output in plan.task.outputs}
    found = {
        name for name, tensor in outputs.items() if axes.get(name) == ("batch", "sequence") and tensor.shape[:2] == size
    }
    if not found:
        return None
    last = torch.minimum(torch.arange(size[1]), torch.tensor(lengths).unsqueeze(1) - 1)
    rows = torch.arange(size[0]).unsqueeze(1)
    return {name: tensor[rows, last] if name in found else tensor for name, tensor in outputs.items()}
