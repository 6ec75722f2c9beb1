"""generate.md: the value of generate.json as tables. What was not measured is a dash; what was refused has a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.generate import summary
from benchmarks.generate.rows import COMPARED, LONG_PROMPT, MODELS, PRECISIONS, PROMPT, ROWS_TOGETHER
from benchmarks.generate.summary import Result
from benchmarks.harness.tables import DASH, milliseconds, number, table
from benchmarks.harness.targets import targets_table

_HEAD = (
    "tokens/s",
    "share",
    f"prompt {PROMPT}, ms",
    f"prompt {LONG_PROMPT}, ms",
    f"{ROWS_TOGETHER} rows, tokens/s",
    "peak, MiB",
    "first token, s",
    f"equal of {COMPARED}",
)


def markdown(result: Result) -> str:
    """The whole page."""
    settings = result["settings"]
    lines = [
        "# Speed of writing text",
        "",
        f"Written by `make bench-generate`. Machine: {result['machine']}; {result['system']}.",
        f"{settings['rounds']} rounds, {settings['threads']} threads. Versions: {_versions(result['versions'])}.",
        f"Converted with {_versions(result['converters'])}.",
        "",
        "![Our best beside the best peer](generate.svg)",
        "",
        "A dash was not measured; what was refused or wrong stands below the tables. The best of ours and of the peers "
        f"is bold. *Equal*: tokens as eager fp32's, of one row; in brackets the least of {ROWS_TOGETHER} rows.",
    ]
    for model in MODELS:
        for precision in PRECISIONS:
            for row in result["rows"]:
                if (row["model"], row["precision"]) == (model, precision):
                    lines += ["", f"## {summary.place_of(row)}", "", *_figures(row, result)]
    lines += ["", "## Targets", "", *targets_table(summary.targets(result))]
    lines += ["", "## Not timed, and forms taken", "", *_remarks(result)]
    lines += ["", "## The contenders", ""]
    lines += [f"- **{name}** ({entry['kind']}): {entry['about']}" for name, entry in result["contenders"].items()]
    lines += ["", "Models: " + "; ".join(f"{name}: {about}" for name, about in result["models"].items()) + "."]
    lines += ["", "## Method", "", *(f"- {line}" for line in result["method"])]
    lines += ["", "Left out:", "", *(f"- {line}" for line in result["left_out"])]
    return "\n".join(lines) + "\n"


def _versions(found: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _figures(row: Result, result: Result) -> list[str]:
    kinds = result["contenders"]
    body = []
    for name, contender in kinds.items():
        entry = row["contenders"].get(name)
        if entry is None or entry["status"] != "timed" or contender["kind"] == "floor":
            continue
        equal = f"{entry['equal']} ({min(entry['equal_together'])})"
        body.append([name, *_cells(row, kinds, name, contender["kind"]), equal])
        if f"{name}, C++" in row["starts"]:
            body.append(
                [f"{name}, C++", *[DASH] * 5, *_starts(row, kinds, f"{name}, C++", "ours, C++"), DASH],
            )
    lines = table(["", *_HEAD], body) if body else ["Nothing was timed."]
    if memory := summary.memory_of(row):
        weights = row["sizes"]["weights"] / 2**20
        lines += [
            "",
            f"A token reads {weights:.0f} MiB of weights; memory was read at {memory / 1e9:.1f} GB per second.",
        ]
    return lines


def _cells(row: Result, kinds: Result, name: str, kind: str) -> list[str]:
    def cell(measure: str, text: str) -> str:
        first = summary.best(row, kinds, kind, measure) if kind != "eager" else None
        return f"**{text}**" if first is not None and first[0] == name else text

    found = {measure: summary.value_of(row, name, measure) for measure in summary.MEASURES}
    share = summary.share_of(row, name)
    return [
        cell("tokens", number(found["tokens"], 1)),
        DASH if share is None else f"{share:.0%}",
        cell("prompt_ms", milliseconds(found["prompt_ms"])),
        cell("long_prompt_ms", milliseconds(found["long_prompt_ms"])),
        cell("tokens_together", number(found["tokens_together"], 1)),
        cell("peak_mib", number(found["peak_mib"], 0)),
        cell("start_s", number(found["start_s"], 2)),
    ]


def _starts(row: Result, kinds: Result, name: str, kind: str) -> list[str]:
    first = summary.best(row, kinds, kind, "start_s")
    start = number(summary.value_of(row, name, "start_s"), 2)
    bold = first is not None and f"{first[0]}, C++" == name
    return [number(summary.value_of(row, name, "peak_mib"), 0), f"**{start}**" if bold else start]


def _remarks(result: Result) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in result["rows"]:
        for name, entry in row["contenders"].items():
            if entry["status"] != "timed":
                reasons.setdefault(f"{name}, {entry['status']}: {_reason(entry)}", []).append(summary.place_of(row))
            elif entry.get("variants"):
                forms = ", ".join(f"{form} {speed:g} tokens/s" for form, speed in entry["variants"].items())
                reasons.setdefault(f"{name}: {entry['variant']} ({forms})", []).append(summary.place_of(row))
    return [f"- {reason} ({', '.join(_all(places))})" for reason, places in sorted(reasons.items())] or ["Nothing."]


def _reason(entry: dict[str, Any]) -> str:
    return str(entry.get("reason") or "no reason was given").replace("|", "/")


def _all(places: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(places))
