"""What the gate compares with: inputs of many shapes and the original model's answers in eager fp32.

In: the adapter around the untouched model, a TracePlan, how much to try. Out: `Point`s. Refuses nothing: an answer that
does not fit the task is the describer's to refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from exporter.inputs import make_inputs
from exporter.plan import TracePlan
from runtime.golden import Case
from runtime.manifest import Verification


@dataclass(frozen=True)
class Point:
    """One shape to verify, and whether its case is stored in the artifact."""

    case: Case
    shape: dict[str, int]
    padded: bool
    golden: bool

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
    for seed, (lengths, golden) in enumerate(_rows(plan, mode)):
        batch, sequence = len(lengths), max(lengths)
        padded = min(lengths) < sequence
        inputs = make_inputs(plan, batch, sequence, lengths, seed=seed + 1)
        # Not inference mode: tensors that a model caches (rotary tables) would then refuse the tracer.
        with torch.no_grad():
            answers = adapter(**inputs.as_dict())
        # Digits in front keep the order: safetensors sorts by name.
        name = f"{len(points):02}-{batch}x{sequence}{'-padded' if padded else ''}"
        # Clones: outputs may be views of larger tensors.
        named = {key: value.detach().clone() for key, value in zip(outputs, answers, strict=True)}
        case = Case(name, inputs.as_dict(), named)
        points.append(Point(case, {"batch": batch, "sequence": sequence}, padded, golden))
    return points


def _rows(plan: TracePlan, mode: Verification) -> list[tuple[list[int], bool]]:
    """Row lengths of each point, and whether it is golden. Padded points have rows of several lengths."""
    short, odd, middle, longest = (min(length, plan.longest) for length in (8, 13, 37, plan.longest))
    rows = [
        ([short], True),
        ([odd, max(1, odd // 2), 1], True),
        ([plan.sequence] * plan.batch, False),
        ([plan.sequence, *([max(1, plan.sequence // 3)] * (plan.batch - 1))], False),
        ([middle, 1, max(1, middle // 2), middle, max(1, middle // 4)], False),
        ([longest], False),
    ]
    if mode == "off":
        rows = rows[:2]
    if mode == "full":
        for batch, length in product((1, plan.batch, 5), (short, middle, plan.sequence, longest)):
            rows.append(([length] * batch, False))
            rows.append(([length, *(max(1, length * i // (batch + 1)) for i in range(1, batch))], False))
        rows.append(([1] * 2, False))
    if not any(spec.name == "attention_mask" for spec in plan.inputs):
        # Without a mask there is no padding: every row is as long as the longest.
        rows = [([max(lengths)] * len(lengths), golden) for lengths, golden in rows]
    unique = {tuple(lengths): golden for lengths, golden in reversed(rows)}
    return [(list(lengths), golden) for lengths, golden in reversed(unique.items())]
