"""Figures from the results: medians, the best of each kind, ratios, and the targets with what was reached.

What was not measured is None.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.targets import Target, ratio

Result = Mapping[str, Any]
# In result["batches"]: the artifact that drops padding, and the one that its full batch is compared with.
DROPPING, KEEPING = "onednn", "onednn-keep"


def offline_of(entry: Result) -> float | None:
    """Samples a second: the median of the runs."""
    return _median(entry, "offline", "samples_per_second")


def server_of(entry: Result) -> float | None:
    """The highest rate of queries a second that held; None where none did."""
    found = entry.get("server")
    return found and found["best_rate"]


def single_stream_of(entry: Result) -> float | None:
    """LoadGen's 90th percentile of the latency in milliseconds: the median of the runs."""
    return _median(entry, "single-stream", "p90_ms")


def call_of(result: Result, batch: str, name: str) -> float | None:
    """Milliseconds of a call: the median of the blocks' medians."""
    entry = result.get("batches", {}).get(batch, {}).get(name)
    if entry is None or entry["status"] != "timed" or not entry.get("blocks_ms"):
        return None
    return float(statistics.median(entry["blocks_ms"]))


def best_of(values: Mapping[str, float | None], result: Result, kind: str, *, lowest: bool = False) -> str | None:
    """The name of the best system of a kind; None where none has a value."""
    known = {
        name: value
        for name, value in values.items()
        if value is not None and result["systems"].get(name, {}).get("kind") == kind
    }
    if not known:
        return None
    return (min if lowest else max)(known, key=lambda name: known[name])


def compared(values: Mapping[str, float | None], result: Result, *, lowest: bool = False) -> dict[str, float]:
    """The best of ours over the best peer, by a text that says who they are; empty where either is missing."""
    ours, peer = (best_of(values, result, kind, lowest=lowest) for kind in ("ours", "peer"))
    if ours is None or peer is None:
        return {}
    found = ratio(values[ours], values[peer])
    return {} if found is None else {f"{ours} / {peer}": found}


def targets(result: Result) -> list[Target]:
    """What the project promises, in the order of its list."""
    systems = result["systems"]
    ragged = {name: call_of(result, "ragged", name) for name in systems}
    dropping, keeping = (call_of(result, "full", name) for name in (DROPPING, KEEPING))
    full = ratio(dropping, keeping)
    return [
        Target("ragged batch, ours / best peer", 0.60, compared(ragged, result, lowest=True)),
        Target("full batch, padding dropped / kept", 1.03, {} if full is None else {f"{DROPPING} / {KEEPING}": full}),
        Target(
            "Offline, samples a second, ours / best peer",
            1.15,
            compared({name: offline_of(entry) for name, entry in systems.items()}, result),
            at_least=True,
        ),
        Target(
            "Server, highest rate, ours / best peer",
            1.15,
            compared({name: server_of(entry) for name, entry in systems.items()}, result),
            at_least=True,
        ),
    ]


def _median(entry: Result, scenario: str, key: str) -> float | None:
    runs = entry.get(scenario, {}).get("runs")
    return statistics.median(run[key] for run in runs) if runs else None
