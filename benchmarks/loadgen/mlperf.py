"""One run of LoadGen in this process. Needs mlcommons-loadgen and numpy.

Returns LoadGen's own results by name, and in accuracy mode the outputs by sample. A run whose log lacks its results is
a RuntimeError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlperf_loadgen
import numpy

from benchmarks.loadgen.systems import LATENCY_MS

Scenario = Literal["Offline", "Server", "SingleStream"]
# The same for every system: the same samples in the same order, arriving in the same rhythm.
SEEDS = {"qsl_rng_seed": 31, "sample_index_rng_seed": 32, "schedule_rng_seed": 33}
SERVER_PERCENTILE = 0.99

# What LoadGen calls its results, by the names of loadgen.json. Times are in nanoseconds.
_RESULTS = {
    "Offline": {"samples_per_second": "result_samples_per_second"},
    "Server": {
        "p99_ms": "result_99.00_percentile_latency_ns",
        "p50_ms": "result_50.00_percentile_latency_ns",
        "completed_per_second": "result_completed_samples_per_sec",
    },
    "SingleStream": {
        "p90_ms": "result_90.00_percentile_latency_ns",
        "p50_ms": "result_50.00_percentile_latency_ns",
    },
}

# LoadGen's number of a query, and the sample that it asks for.
Asked = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """A run: how long, and at which rate (Offline: the one expected, Server: that of the queries)."""

    scenario: Scenario
    accuracy: bool
    seconds: float
    rate: float


def run(plan: Plan, count: int, ask: Callable[[list[Asked]], None], folder: Path) -> dict[str, Any]:
    """Let LoadGen ask; returns when every query was answered through `complete`."""
    folder.mkdir(parents=True, exist_ok=True)
    sut = mlperf_loadgen.ConstructSUT(lambda queries: ask([(one.id, one.index) for one in queries]), _nothing)
    # All samples lie in memory, ready to be asked.
    library = mlperf_loadgen.ConstructQSL(count, count, _nothing, _nothing)
    log = mlperf_loadgen.LogSettings()
    log.log_output.outdir = str(folder)
    log.enable_trace = False
    try:
        mlperf_loadgen.StartTestWithLogSettings(sut, library, _settings(plan), log)
    finally:
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(sut)
    if plan.accuracy:
        return {"answers": _answers(folder)}
    return _results(folder, plan.scenario)


def complete(identifier: int, answer: Any) -> None:
    """Give LoadGen the answer to a query; from any thread."""
    data = numpy.ascontiguousarray(answer, dtype=numpy.float32)
    response = mlperf_loadgen.QuerySampleResponse(identifier, data.ctypes.data, data.nbytes)
    mlperf_loadgen.QuerySamplesComplete([response])


def _settings(plan: Plan) -> Any:
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = getattr(mlperf_loadgen.TestScenario, plan.scenario)
    mode = mlperf_loadgen.TestMode
    settings.mode = mode.AccuracyOnly if plan.accuracy else mode.PerformanceOnly
    settings.min_duration_ms = round(1000 * plan.seconds)
    settings.min_query_count = 1
    settings.offline_expected_qps = plan.rate
    settings.server_target_qps = plan.rate
    settings.server_target_latency_ns = LATENCY_MS * 1_000_000
    settings.server_target_latency_percentile = SERVER_PERCENTILE
    # Each sample as often as every other: lengths differ too much to be left to chance.
    settings.sample_concatenate_permutation = plan.scenario == "Offline"
    for name, seed in SEEDS.items():
        setattr(settings, name, seed)
    return settings


def _results(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """From LoadGen's detailed log, whose lines are JSON after a mark."""
    found = {}
    for line in (folder / "mlperf_log_detail.txt").read_text().splitlines():
        _, mark, entry = line.partition(":::MLLOG ")
        if mark:
            parsed = json.loads(entry)
            found[parsed["key"]] = parsed["value"]
    try:
        results = {
            name: found[key] / 1e6 if name.endswith("_ms") else found[key] for name, key in _RESULTS[scenario].items()
        }
        return results | {
            "queries": found["result_query_count"] if "result_query_count" in found else found["generated_query_count"],
            "samples_a_query": found["generated_samples_per_query"],
            "valid": found["result_validity"] == "VALID",
        }
    except KeyError as missing:
        raise RuntimeError(f"LoadGen's log in {folder} has no {missing}") from None


def _answers(folder: Path) -> dict[int, list[float]]:
    """Logits by sample, as LoadGen logged them."""
    entries = json.loads((folder / "mlperf_log_accuracy.json").read_text())
    return {
        entry["qsl_idx"]: numpy.frombuffer(bytes.fromhex(entry["data"]), dtype=numpy.float32).tolist()
        for entry in entries
    }


def _nothing(*_: object) -> None:
    pass
