"""Search the highest rate that holds: which rate to try next, and when the search ends.

LoadGen's own search (its mode FindPeakPerformance) is not used: it stays with one system until it ends, and anything
that slows the machine down meanwhile would count against that system. Here systems take turns, one rate each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class RateSearch:
    """Up or down until one rate held and a higher one did not, then halving what lies between.

    The first step is by `step`, the second by its square, and so on: a guess may be far off.

    Done when the two are within `precision` of each other, or after `most` tries.
    """

    first: float
    step: float = 1.15
    precision: float = 0.02
    most: int = 8
    tried: list[tuple[float, bool]] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """The highest rate that held, of those below every rate that did not; None before one did."""
        return max((rate for rate, held in self.tried if held and rate < self._broken), default=None)

    @property
    def _broken(self) -> float:
        """The lowest rate that did not hold."""
        return min((rate for rate, held in self.tried if not held), default=math.inf)

    def next(self) -> float | None:
        """The rate to try; None when it is found, or not to be found in so many tries."""
        if not self.tried:
            return self.first
        if len(self.tried) >= self.most:
            return None
        if self.best is None:
            return self._broken / self.step ** len(self.tried)
        if self._broken == math.inf:
            return self.best * self.step ** len(self.tried)
        if self._broken <= self.best * (1 + self.precision):
            return None
        return math.sqrt(self.best * self._broken)

    def record(self, rate: float, held: bool) -> None:
        """What became of a rate."""
        self.tried.append((rate, held))
