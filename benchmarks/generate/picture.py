"""generate.svg: the time that the best of this project's files takes, relative to the best peer's; left of 1 is faster.

A dot per measure and row. A row without a timed peer, or without a file of this project, is left out.
"""

from __future__ import annotations

from benchmarks.generate import summary
from benchmarks.generate.rows import LONG_PROMPT, PRECISIONS, ROWS_TOGETHER
from benchmarks.generate.summary import MEASURES, Result
from benchmarks.harness.charts import Figure, Mark, dots

SERIES = {"tokens": "one row", "long_prompt_ms": f"prompt of {LONG_PROMPT}", "tokens_together": f"{ROWS_TOGETHER} rows"}
MARKS = {
    SERIES["tokens"]: Mark("#d55e00"),
    SERIES["long_prompt_ms"]: Mark("#0072b2", "s"),
    SERIES["tokens_together"]: Mark("#009e73", "^"),
}
# From a third of the best peer's time to three times as long.
_LOW, _HIGH = 0.35, 2.8


def picture(result: Result) -> Figure:
    """A panel per precision."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for precision in PRECISIONS:
        rows = {}
        for row in result["rows"]:
            if row["precision"] == precision and (ratios := _ratios(row, result)):
                peer = summary.best(row, result["contenders"], "peer", "tokens")
                rows[f"{row['model']}, to {peer[0] if peer else 'the best'}"] = ratios
        if rows:
            panels[precision] = rows
    return dots(
        "Time relative to the best peer (left of 1: faster; hollow: beyond the edge)", panels, MARKS, _LOW, _HIGH
    )


def _ratios(row: Result, result: Result) -> dict[str, float]:
    found = {}
    for measure, name in SERIES.items():
        value = summary.against_peer(row, result["contenders"], measure)
        if value is not None:
            found[name] = 1 / value if MEASURES[measure] else value
    return found
