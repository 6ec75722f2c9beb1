"""speed.svg: every time relative to the best peer's, one line per row, one dot per contender.

A row without a timed peer is left out. Of this project's artifacts only the tuned one is shown: a line with ten dots
could not be read, and speed.md has all times.
"""

from __future__ import annotations

from benchmarks.harness.charts import Figure, Mark, dots
from benchmarks.harness.rows import PRECISIONS
from benchmarks.speed import summary
from benchmarks.speed.summary import Result

MARKS = {
    "tuned": Mark("#d55e00"),
    "onnxruntime": Mark("#009e73", "s"),
    "openvino": Mark("#0072b2", "D"),
    "compile": Mark("#56b4e9", "^"),
    "aot": Mark("#cc79a7", "v"),
    "eager": Mark("#8a949b", "X"),
    "floor": Mark("#222222", tick=True),
}
_NAMES = {"tuned": "this project, tuned", "floor": "matrix products alone", "compile": "torch.compile"}
_NAMES |= {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "aot": "AOTInductor", "eager": "eager mode"}
# From half of the best peer's time to four times.
_LOW, _HIGH = 0.5, 4.0


def picture(result: Result) -> Figure:
    """A panel per precision."""
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for precision in PRECISIONS:
        rows = {f"{row['model']} {row['shape']}": _ratios(row, result) for row in _of(result, precision)}
        if any(rows.values()):
            panels[precision] = {name: ratios for name, ratios in rows.items() if ratios}
    title = "Time of a call relative to the best peer (left of 1: faster; hollow: beyond the edge)"
    return dots(title, panels, {_NAMES[name]: mark for name, mark in MARKS.items()}, _LOW, _HIGH)


def _of(result: Result, precision: str) -> list[Result]:
    return [row for row in result["rows"] if row["precision"] == precision]


def _ratios(row: Result, result: Result) -> dict[str, float]:
    """Each contender's time over the best peer's, by the name in the picture; empty without a timed peer."""
    peer = summary.best_peer(row, result["contenders"])
    times = {name: summary.time_of(row, name) for name in MARKS}
    return {_NAMES[name]: time / peer[1] for name, time in times.items() if peer and time is not None}
