"""speed.svg: the time of this project's file relative to the best peer's, one line and one dot per row.

The fastest of this project's contenders counts, as the fastest of the peers does; the stroke is the time of the matrix
products alone. A row without a timed peer, or without a file of this project, is left out.
"""

from __future__ import annotations

from benchmarks.harness.charts import Figure, Mark, dots
from benchmarks.harness.rows import PRECISIONS
from benchmarks.speed import summary
from benchmarks.speed.summary import Result

OURS, FLOOR = "this project", "matrix products alone"
MARKS = {OURS: Mark("#d55e00"), FLOOR: Mark("#222222", tick=True)}
# From half of the best peer's time to twice.
_LOW, _HIGH = 0.5, 2.0


def picture(result: Result) -> Figure:
    """A panel per precision."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for precision in PRECISIONS:
        rows = {}
        for row in result["rows"]:
            if row["precision"] == precision and (ratios := _ratios(row, result)):
                peer = summary.best_peer(row, result["contenders"])
                assert peer is not None
                rows[f"{row['model']} {row['shape']}, to {peer[0]}"] = ratios
        if rows:
            panels[precision] = rows
    title = "Time of a call relative to the best peer (left of 1: faster; hollow: beyond the edge)"
    return dots(title, panels, MARKS, _LOW, _HIGH)


def _ratios(row: Result, result: Result) -> dict[str, float]:
    """Ours and the floor over the best peer's time; empty without a peer or a file of ours."""
    kinds = result["contenders"]
    peer = summary.best_peer(row, kinds)
    ours = [summary.time_of(row, name) for name, contender in kinds.items() if contender["kind"] == "ours"]
    best = min((time for time in ours if time is not None), default=None)
    if peer is None or best is None:
        return {}
    floor = summary.time_of(row, "floor")
    return {OURS: best / peer[1]} | ({} if floor is None else {FLOOR: floor / peer[1]})
