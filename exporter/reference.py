"""What the gate compares with: inputs of many shapes and the original model's answers in eager fp32.

In: the adapter around the untouched model, a TracePlan, how much to try. Out: `Point`s. Refuses (ModelFailedError) a
model that fails by itself; an answer that does not fit the task is the describer's to refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from exporter.failures import failing_by_name
from exporter.inputs import make_inputs
from exporter.plan import TracePlan
from runtime.golden import Case, sampled
from runtime.manifest import Verification

# Numbers of one answer that are compared: a longest batch of fill-mask logits has 80 million, and the gate holds the
# answers at all shapes at once. Of a larger answer evenly spread ones are.
COMPARED = 2**22


@dataclass(frozen=True)
class Point:
    """One shape to verify. Its case is stored in the artifact, large outputs as samples.

    `output_shapes` are those of the whole answers, of which the case may hold samples.
    """

    case: Case
    shape: dict[str, int]
    padded: bool
    output_shapes: dict[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """The shape, for people."""
        return self.case.name.partition("-")[2]


def reference_points(
    adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str], mode: Verification
) -> list[Point]:
    """Shapes, inputs and the answers of the original model: run this before any backend touches it.

    With `off` only the golden cases are made.
    """
    points: list[Point] = []
    for seed, lengths in enumerate(_rows(plan, mode)):
        batch, sequence = len(lengths), max(lengths)
        padded = min(lengths) < sequence
        inputs = make_inputs(plan, batch, sequence, lengths, seed=seed + 1)
        # Not inference mode: tensors that a model caches (rotary tables) would then refuse the tracer.
        with failing_by_name(f"{batch}x{sequence}"), torch.no_grad():
            answers = adapter(**inputs.as_dict())
        # Digits in front keep the order: safetensors sorts by name.
        name = f"{len(points):02}-{batch}x{sequence}{'-padded' if padded else ''}"
        # Clones: outputs may be views of larger tensors.
        named = {key: value.detach().clone() for key, value in zip(outputs, answers, strict=True)}
        case = sampled(Case(name, inputs.as_dict(), named), COMPARED)
        whole = {key: tuple(value.shape) for key, value in named.items()}
        points.append(Point(case, {"batch": batch, "sequence": sequence}, padded, whole))
    return points


def _rows(plan: TracePlan, mode: Verification) -> list[list[int]]:
    """Row lengths of each point. Padded points have rows of several lengths."""
    short, odd, middle, longest = (min(length, plan.longest) for length in (8, 13, 37, plan.longest))
    rows = [
        [short],
        [odd, max(1, odd // 2), 1],
        [plan.sequence] * plan.batch,
        [plan.sequence, *([max(1, plan.sequence // 3)] * (plan.batch - 1))],
        [middle, 1, max(1, middle // 2), middle, max(1, middle // 4)],
        [longest],
    ]
    if mode == "off":
        rows = rows[:2]
    if mode == "full":
        for batch, length in product((1, plan.batch, 5), (short, middle, plan.sequence, longest)):
            rows.append([length] * batch)
            rows.append([length, *(max(1, length * i // (batch + 1)) for i in range(1, batch))])
        rows.append([1] * 2)
    if not any(spec.name == "attention_mask" for spec in plan.inputs):
        # Without a mask there is no padding: every row is as long as the longest.
        rows = [[max(lengths)] * len(lengths) for lengths in rows]
    return [list(lengths) for lengths in dict.fromkeys(map(tuple, rows))]
