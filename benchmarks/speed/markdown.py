"""speed.md: the value of speed.json as tables. What was not timed is a dash, and what was wrong is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.rows import PRECISIONS
from benchmarks.harness.tables import DASH, milliseconds, number, table
from benchmarks.harness.targets import targets_table
from benchmarks.speed import summary
from benchmarks.speed.summary import Result

# Operators of a profile that are shown; the rest is one line.
_OPERATORS = 15


def markdown(result: Result) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# Speed of a call",
        "",
        f"Written by `make bench`. Machine: {result['machine']}; {result['system']}.",
        f"{_settings(result)} Versions: {versions}.",
        "",
        "![Time of a call relative to the best peer](speed.svg)",
        "",
        "Times are milliseconds a call. A dash was not measured; *wrong* gave wrong answers and was not timed; "
        "*failed* is explained below the tables. The best time of ours and of the peers is bold.",
    ]
    for precision in PRECISIONS:
        rows = [row for row in result["rows"] if row["precision"] == precision]
        if rows:
            lines += ["", f"## {precision}", "", *_times(rows, result["contenders"])]
            lines += ["", *_ratios(rows, result["contenders"])]
    lines += ["", "## Targets", "", *targets_table(summary.targets(result))]
    lines += ["", "## First answer and memory", "", *_starts(result)]
    lines += ["", "## Where the time of the native artifact goes", "", *_profiles(result)]
    lines += ["", "## How far the answers are from eager fp32", "", *_errors(result)]
    lines += ["", "## Not timed, and forms taken", "", *_remarks(result)]
    lines += ["", "## The contenders", ""]
    lines += [f"- **{name}** ({entry['kind']}): {entry['about']}" for name, entry in result["contenders"].items()]
    lines += ["", "Models: " + "; ".join(f"{name}: {about}" for name, about in result["models"].items()) + "."]
    lines += ["", "## Method", "", *(f"- {line}" for line in result["method"])]
    lines += ["", "Left out:", "", *(f"- {line}" for line in result["left_out"])]
    return "\n".join(lines) + "\n"


def _settings(result: Result) -> str:
    given = result["settings"]
    return (
        f"{given['rounds']} rounds, {given['seconds a block']:g} s and {given['least calls a block']} calls or more a "
        f"block, {given['threads']} threads; tuned for {given['tuned for']}."
    )


def _times(rows: Sequence[Result], kinds: Mapping[str, Any]) -> list[str]:
    names = [name for name in kinds if any(name in row["contenders"] for row in rows)]
    body = []
    for row in rows:
        best = {}
        for kind in ("ours", "peer"):
            times = [summary.time_of(row, name) for name in names if kinds[name]["kind"] == kind]
            best[kind] = min((time for time in times if time is not None), default=None)
        cells = []
        for name in names:
            entry, time = row["contenders"].get(name), summary.time_of(row, name)
            if time is None:
                status = entry["status"] if entry else "missing"
                cells.append(f"*{status}*" if status in ("wrong", "failed") else DASH)
            else:
                bold = "**" if time == best.get(kinds[name]["kind"]) else ""
                cells.append(f"{bold}{milliseconds(time)}{bold}")
        several = "" if summary.runs_of(row) < 2 else " †"
        body.append([f"{row['model']} {row['shape']}{several}", *cells])
    lines = table(["ms", *names], body)
    if any(summary.runs_of(row) > 1 for row in rows):
        lines += ["", "† Timed in more than one run: these ratios compare times of different moments."]
    return lines


def _ratios(rows: Sequence[Result], kinds: Mapping[str, Any]) -> list[str]:
    body = []
    for row in rows:
        peer = summary.best_peer(row, kinds)
        values = [number(summary.ratio_of(row, kinds, name)) for name in summary.RATIOS]
        body.append([f"{row['model']} {row['shape']}", peer[0] if peer else DASH, *values])
    means = [
        number(summary.geometric_mean(summary.ratio_of(row, kinds, name) for row in rows)) for name in summary.RATIOS
    ]
    body.append(["**geometric mean**", "", *means])
    return table(["ratio", "best peer", *summary.RATIOS], body, ["best peer"])


def _starts(result: Result) -> list[str]:
    body = []
    for row in result["rows"]:
        for name in row.get("starts", {}):
            start = summary.start_of(row, name)
            assert start is not None
            body.append(
                [
                    f"{summary.place_of(row)}, {name}",
                    number(start["start_s"]),
                    number(start["beyond_import_s"]),
                    number(start["peak_mib"], 0),
                    number(start["steady_mib"], 0),
                    number(start["steady_mib"] / summary.weights_mib(result, row)),
                ]
            )
    if not body:
        return ["Not measured."]
    head = ["", "first answer, s", "of it after the framework's import, s", "peak, MiB"]
    return table([*head, "steady beyond import, MiB", "steady / weights"], body)


def _profiles(result: Result) -> list[str]:
    lines: list[str] = []
    for row in result["rows"]:
        profile = row.get("profile")
        if not profile:
            continue
        operators = sorted(profile["operators"], key=lambda operator: operator["ms"], reverse=True)
        whole = sum(operator["ms"] for operator in operators) or 1.0
        shown, rest = operators[:_OPERATORS], operators[_OPERATORS:]
        body = [
            [f"`{operator['name']}`", f"{operator['count']:g}", number(operator["ms"]), f"{operator['ms'] / whole:.1%}"]
            for operator in shown
        ]
        if rest:
            left = sum(operator["ms"] for operator in rest)
            body.append([f"{len(rest)} others", "", number(left), f"{left / whole:.1%}"])
        lines += [f"{summary.place_of(row)}, over {profile['calls']} calls:", ""]
        lines += [*table(["operator", "times a call", "its own ms", "share"], body), ""]
    return lines[:-1] or ["Not measured (`--profile`)."]


def _errors(result: Result) -> list[str]:
    """By row and contender; the cosines where weights are trained and int8 moves them."""
    names = [name for name, contender in result["contenders"].items() if contender["kind"] != "floor"]
    body, cosines = [], []
    for row in result["rows"]:
        found = {name: row["contenders"].get(name, {}).get("errors") for name in names}
        body.append([summary.place_of(row), *(f"{one['rms_error']:.1e}" if one else DASH for one in found.values())])
        if (row["model"], row["precision"]) == ("minilm", "int8"):
            both = (f"{one['cosine_mean']:.4f}, {one['cosine_least']:.4f}" if one else DASH for one in found.values())
            cosines.append([summary.place_of(row), *both])
    lines = ["Relative: rms(y - r) / rms(r) over all cases of a row.", "", *table(["rms error", *names], body)]
    if cosines:
        lines += ["", *table(["mean, least cosine", *names], cosines)]
    return lines


def _remarks(result: Result) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in result["rows"]:
        for name, entry in row["contenders"].items():
            if entry["status"] != "timed":
                why = entry.get("reason") or "answers too far from eager fp32 (see its errors)"
                reasons.setdefault(f"{name}, {entry['status']}: {why}", []).append(summary.place_of(row))
            elif entry.get("variants_ms"):
                reasons.setdefault(f"{name}: {entry['variant']}", []).append(summary.place_of(row))
    return [f"- {reason} ({', '.join(places)})" for reason, places in sorted(reasons.items())] or ["Nothing."]
