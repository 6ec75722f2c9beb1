"""loadgen.md: the value of loadgen.json as tables. What was not measured is a dash."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.tables import DASH, milliseconds, number, table
from benchmarks.harness.targets import targets_table
from benchmarks.loadgen import summary
from benchmarks.loadgen.summary import Result


def markdown(result: Result) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    given, drawn = result["settings"], result["lengths"]
    lines = [
        "# Served: ragged traffic under MLPerf's load generator",
        "",
        f"Written by `make bench-loadgen`. Machine: {result['machine']}; "
        f"{result['system']}. {given['seconds']:g} s a run or more (Server: twice as long, SingleStream half), "
        f"{given['rounds']} rounds. "
        f"Versions: {versions}.",
        "",
        "![Samples a second Offline, and the highest rate that holds](loadgen.svg)",
        "",
        f"Model: {result['model']}. {drawn['count']} samples of {drawn['least']} to {drawn['most']} tokens, "
        f"{drawn['mean']:.1f} in the mean, which is {drawn['share']:.0%} of {drawn['longest']}; {drawn['about']}.",
        "",
        *_scenarios(result),
        "",
        "## Targets",
        "",
        *targets_table(summary.targets(result)),
        "",
        "## Two padded batches",
        "",
        *_batches(result),
        "",
        "## Trials: which strategy suits whom",
        "",
        *_trials(result),
        "",
        "## The search for the highest rate",
        "",
        *_search(result),
        "",
        "## How far the answers are from eager fp32",
        "",
        *_errors(result),
        "",
        "## The systems",
        "",
        *(f"- **{name}** ({one['kind']}, {one['precision']}): {one['about']}" for name, one in _systems(result)),
        "",
        "## Method",
        "",
        *(f"- {line}" for line in result["method"]),
        "",
        "Left out:",
        "",
        *(f"- {line}" for line in result["left_out"]),
    ]
    return "\n".join(lines) + "\n"


def _systems(result: Result) -> list[tuple[str, Any]]:
    return list(result["systems"].items())


def _scenarios(result: Result) -> list[str]:
    body = []
    for name, entry in _systems(result):
        body.append(
            [
                f"{name}, {entry['precision']}",
                number(summary.offline_of(entry), 1),
                entry.get("offline", {}).get("strategy", DASH),
                number(summary.server_of(entry), 1),
                entry.get("server", {}).get("strategy", DASH),
                milliseconds(summary.single_stream_of(entry)),
            ]
        )
    head = ["", "Offline, samples/s", "with", f"Server, queries/s at p99 of {result['settings']['latency_ms']:g} ms"]
    lines = table([*head, "with ", "SingleStream, p90 in ms"], body, ["with", "with "])
    lines += [
        "",
        "A strategy is streams x threads, and how queries are put together; of each system its fastest in the trials.",
    ]
    for name, entry in _systems(result):
        if entry["status"] != "timed":
            lines += ["", f"{name}, {entry['status']}: {entry['reason']}"]
    return lines


def _batches(result: Result) -> list[str]:
    found = result.get("batches", {})
    if not found:
        return ["Not measured."]
    names = list(dict.fromkeys(name for entries in found.values() for name in entries))
    body = [
        [words, *(milliseconds(summary.call_of(result, batch, name)) for name in names)]
        for batch, words in (("ragged", f"lengths {result['ragged']}"), ("full", "8 x 128, no padding"))
    ]
    lines = table(["ms a call", *names], body)
    reasons = {
        f"{name}, {entry['status']}: {entry['reason']}"
        for entries in found.values()
        for name, entry in entries.items()
        if "reason" in entry
    }
    return lines + [line for reason in sorted(reasons) for line in ("", reason)]


def _trials(result: Result) -> list[str]:
    names = list(dict.fromkeys(name for _, entry in _systems(result) for name in entry.get("trials", {})))
    if not names:
        return ["Not measured."]
    body = []
    for strategy in names:
        cells = [strategy]
        for _, entry in _systems(result):
            trial = entry["trials"].get(strategy)
            cells.append(
                DASH if trial is None else number(trial["samples_per_second"], 1) if trial["right"] else "*wrong*"
            )
        body.append(cells)
    lines = ["Short Offline runs, samples a second:", "", *table(["", *(name for name, _ in _systems(result))], body)]
    server = [
        f"- {name}: "
        + "; ".join(f"{strategy}, {run['p99_ms']:.0f} ms" for strategy, run in entry["server"]["trials"].items())
        for name, entry in _systems(result)
        if "server" in entry
    ]
    return lines + (["", "Short Server runs of the fastest of them, p99 latency:", "", *server] if server else [])


def _search(result: Result) -> list[str]:
    body = []
    for name, entry in _systems(result):
        for run in sorted(entry.get("server", {}).get("runs", []), key=lambda run: run["rate"]):
            best = run["rate"] == entry["server"]["best_rate"]
            cells = [number(run["rate"], 1), number(run["p50_ms"], 0), number(run["p99_ms"], 0), str(run["queries"])]
            body.append([f"**{name}**" if best else name, *cells, "valid" if run["valid"] else "not valid"])
    if not body:
        return ["Not measured."]
    return [
        *table(["", "queries/s", "p50, ms", "p99, ms", "queries", "LoadGen's verdict"], body, ["LoadGen's verdict"]),
        "",
        "Bold: the highest that held. A rate holds where LoadGen's 99th percentile is within the limit; its own "
        "verdict asks for more, namely so many queries that the percentile is certain.",
    ]


def _errors(result: Result) -> list[str]:
    body = []
    for name, entry in _systems(result):
        trials = entry.get("trials", {}).values()
        if trials:
            rms, worst = (max(trial[key] for trial in trials) for key in ("rms_error", "worst"))
            body.append([f"{name}, {entry['precision']}", f"{rms:.1e}", f"{worst:.1e}"])
    if not body:
        return ["Not measured."]
    return [
        "LoadGen's accuracy mode asks every sample once, with every strategy. The largest over the strategies: "
        "rms(y - r) / rms(r), and the worst sample's distance, relative to the root mean square of all.",
        "",
        *table(["", "rms error", "worst sample"], body),
    ]
