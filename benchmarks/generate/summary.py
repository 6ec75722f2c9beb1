"""Figures from the results: medians, the best of ours and of the peers, and the targets with what was reached.

What was not measured is None.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.generate.rows import NEW, PROMPT, ROWS_TOGETHER
from benchmarks.harness.targets import Target, ratio

Result = Mapping[str, Any]

# What is measured, and whether more of it is better.
MEASURES = {
    "tokens": True,
    "prompt_ms": False,
    "long_prompt_ms": False,
    "tokens_together": True,
    "peak_mib": False,
    "start_s": False,
}
_OF_STARTS = ("peak_mib", "start_s")


def value_of(row: Result, contender: str, measure: str) -> float | None:
    """The median; None where it was not measured."""
    if measure in _OF_STARTS:
        entry = row["starts"].get(contender, {})
    else:
        entry = row["contenders"].get(contender, {})
        if entry.get("status") != "timed":
            return None
    return float(statistics.median(entry[measure])) if entry.get(measure) else None


def best(row: Result, kinds: Result, kind: str, measure: str) -> tuple[str, float] | None:
    """The best contender of a kind, and its figure; in C++ where it is ours and that is asked for by `ours, C++`."""
    names = [name for name, one in kinds.items() if one["kind"] == kind.partition(",")[0]]
    found = [(name, value_of(row, name + kind.partition("ours")[2], measure)) for name in names]
    known = [(name, value) for name, value in found if value is not None]
    return (max if MEASURES[measure] else min)(known, key=lambda pair: pair[1], default=None)


def share_of(row: Result, contender: str) -> float | None:
    """Of the speed of memory, by the weights that a token reads."""
    tokens, memory = value_of(row, contender, "tokens"), _memory(row)
    return None if tokens is None or memory is None else tokens * row["sizes"]["weights"] / memory


def _memory(row: Result) -> float | None:
    return value_of(row, "memory", "bytes_per_s")


def memory_of(row: Result) -> float | None:
    """Bytes per second, as read beside the contenders."""
    return _memory(row)


def against_peer(row: Result, kinds: Result, measure: str, ours: str = "ours") -> float | None:
    """The best of ours over the best peer."""
    mine, peer = best(row, kinds, ours, measure), best(row, kinds, "peer", measure)
    return ratio(mine and mine[1], peer and peer[1])


def needed_mib(row: Result) -> float:
    """Weights, and the cache of all rows that are written together."""
    tokens = ROWS_TOGETHER * (PROMPT + NEW + 1)
    return float((row["sizes"]["weights"] + tokens * row["sizes"]["cache_per_token"]) / 2**20)


def place_of(row: Result) -> str:
    """A row's name in the report."""
    return f"{row['model']} {row['precision']}"


def targets(result: Result) -> list[Target]:
    """What the project promises, in the order of its list."""
    rows, kinds = result["rows"], result["contenders"]

    def each(measure: str) -> dict[str, float]:
        return _known((place_of(row), against_peer(row, kinds, measure)) for row in rows)

    large = [row for row in rows if row["model"] == "qwen05" and row["precision"] in ("bf16", "int8")]
    fastest = {place_of(row): best(row, kinds, "ours", "tokens") for row in large}
    shares = _known((place_of(row), share_of(row, one[0])) for row in large if (one := fastest[place_of(row)]))
    peaks = {place_of(row): best(row, kinds, "ours", "peak_mib") for row in rows}
    starts = [row for row in rows if row["model"] == "smollm2"]
    return [
        Target("tokens per second of one row / best peer", 1.0, each("tokens"), at_least=True),
        Target("share of the memory's speed, 0.5B in bf16 and int8", 0.8, shares, at_least=True),
        Target("prompt of 512 / best peer", 1.0, each("long_prompt_ms")),
        Target("tokens per second of 8 rows / best peer", 1.2, each("tokens_together"), at_least=True),
        Target(
            "peak beyond imports / weights and cache",
            1.1,
            _known((place_of(row), (one := peaks[place_of(row)]) and one[1] / needed_mib(row)) for row in rows),
        ),
        Target(
            "first token after process start in C++, SmolLM2 / best peer",
            1.0,
            _known((place_of(row), against_peer(row, kinds, "start_s", "ours, C++")) for row in starts),
        ),
    ]


def _known(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    return {place: value for place, value in pairs if value is not None}
