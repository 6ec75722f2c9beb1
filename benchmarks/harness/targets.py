"""Targets: what the project promises, what was measured, and where a promise was missed by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness import tables


@dataclass(frozen=True)
class Target:
    """A bound, and every measured value that it is for, by place; `at_least` makes it a lower bound."""

    words: str
    bound: float
    measured: Mapping[str, float]
    at_least: bool = False

    @property
    def missed(self) -> dict[str, float]:
        """The places beyond the bound, the worst first."""
        beyond = {
            place: value
            for place, value in self.measured.items()
            if (value < self.bound if self.at_least else value > self.bound)
        }
        return dict(sorted(beyond.items(), key=lambda pair: pair[1], reverse=not self.at_least))

    @property
    def worst(self) -> float | None:
        """The value that decides."""
        if not self.measured:
            return None
        return min(self.measured.values()) if self.at_least else max(self.measured.values())


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """None where either is missing."""
    return None if numerator is None or denominator is None else numerator / denominator


def targets_table(targets: Sequence[Target]) -> list[str]:
    """Each target's bound, its worst value and whether it was reached; below, the places where it was missed."""
    body, misses = [], []
    for target in targets:
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
        missed = target.missed
        verdict = "not measured" if not target.measured else "reached"
        if missed:
            verdict = f"**missed** at {len(missed)} of {len(target.measured)}"
            places = "; ".join(f"{place} {value:.3f}, by {_by(target, value)}" for place, value in missed.items())
            misses.append(f"- {target.words}: {places}")
        body.append([target.words, bound, tables.number(target.worst, 3), verdict])
    lines = tables.table(["target", "bound", "worst", "reached or missed"], body, ["bound", "reached or missed"])
    return [*lines, "", "Missed:", "", *misses] if misses else lines


def _by(target: Target, value: float) -> str:
    return f"{abs(value - target.bound) / target.bound:.1%}"
