"""Figures from the results: medians, ratios, geometric means, and the targets with what was reached.

What was not measured is None.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.harness.targets import Target, ratio

Result = Mapping[str, Any]


def time_of(row: Result, contender: str) -> float | None:
    """Milliseconds a call: the median of the blocks' medians; None where it was not timed."""
    entry = row["contenders"].get(contender)
    if entry is None or entry["status"] != "timed" or not entry.get("blocks_ms"):
        return None
    return float(statistics.median(entry["blocks_ms"]))


def best_peer(row: Result, kinds: Mapping[str, Any]) -> tuple[str, float] | None:
    """The fastest of the peers, and its time."""
    times = [(name, time_of(row, name)) for name, contender in kinds.items() if contender["kind"] == "peer"]
    timed = [(name, time) for name, time in times if time is not None]
    return min(timed, key=lambda pair: pair[1], default=None)


# The columns of ratios, in the tables' order: two contenders each, `peer` for the fastest of the peers.
RATIOS = {
    "native / best peer": ("native", "peer"),
    "native / eager": ("native", "eager"),
    "native / floor": ("native", "floor"),
    "tuned / best peer": ("tuned", "peer"),
}
# Of a precision's rows, native to the best peer: the geometric mean.
MEANS = {"fp32": 0.97, "bf16": 0.90, "int8": 0.88}


def ratio_of(row: Result, kinds: Mapping[str, Any], name: str) -> float | None:
    """One of `RATIOS` at a row; None where either time is missing."""
    above, below = RATIOS[name]
    peer = best_peer(row, kinds)
    return ratio(time_of(row, above), peer and peer[1] if below == "peer" else time_of(row, below))


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None if none is."""
    known = [value for value in values if value is not None]
    return math.exp(statistics.fmean(math.log(value) for value in known)) if known else None


def runs_of(row: Result) -> int:
    """How many runs the timed contenders of a row come from; ratios hold within one run only."""
    return len({entry["run"] for entry in row["contenders"].values() if entry["status"] == "timed"})


def start_of(row: Result, contender: str) -> dict[str, float] | None:
    """Medians over the fresh processes; None where none was started.

    `beyond_import_s` is from the framework's import to the first answer, `steady_mib` beyond that import.
    """
    entry = row.get("starts", {}).get(contender)
    if not entry:
        return None
    return {
        "start_s": statistics.median(entry["start_s"]),
        "import_s": statistics.median(entry["import_s"]),
        "beyond_import_s": statistics.median(
            start - imported for start, imported in zip(entry["start_s"], entry["import_s"], strict=True)
        ),
        "peak_mib": statistics.median(entry["peak_mib"]),
        "steady_mib": statistics.median(
            steady - imported for steady, imported in zip(entry["steady_mib"], entry["import_mib"], strict=True)
        ),
    }


def targets(result: Result) -> list[Target]:
    """What the project promises, in the order of its list."""
    rows, kinds = result["rows"], result["contenders"]
    found = {place_of(row): start_of(row, "native") for row in rows}
    starts = {place: start for place, start in found.items() if start is not None}

    every = {place_of(row): ratio_of(row, kinds, "native / best peer") for row in rows}

    def mean(precision: str) -> dict[str, float]:
        value = geometric_mean(
            ratio_of(row, kinds, "native / best peer") for row in rows if row["precision"] == precision
        )
        return {} if value is None else {precision: value}

    return [
        Target("native / best peer, every row", 1.0, {place: value for place, value in every.items() if value}),
        *(
            Target(f"native / best peer, geometric mean, {precision}", bound, mean(precision))
            for precision, bound in MEANS.items()
        ),
        Target(
            "steady memory beyond import torch / weights",
            1.15,
            {
                place_of(row): starts[place_of(row)]["steady_mib"] / weights_mib(result, row)
                for row in rows
                if place_of(row) in starts
            },
        ),
        *(
            Target(
                f"int8 MiniLM without calibration, {words} cosine to fp32", bound, _cosines(rows, key), at_least=True
            )
            for words, key, bound in (("mean", "cosine_mean", 0.995), ("least", "cosine_least", 0.98))
        ),
    ]


def weights_mib(result: Result, row: Result) -> float:
    """One copy of the weights in the row's precision."""
    return float(result["weights_bytes"][row["model"]][row["precision"]] / 2**20)


def place_of(row: Result) -> str:
    """A row's name in the report."""
    return f"{row['model']} {row['shape']} {row['precision']}"


def _cosines(rows: Iterable[Result], key: str) -> dict[str, float]:
    found = {}
    for row in rows:
        entry = row["contenders"].get("native")
        if (row["model"], row["precision"]) == ("minilm", "int8") and entry and entry.get("errors"):
            found[place_of(row)] = entry["errors"][key]
    return found
