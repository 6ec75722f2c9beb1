"""The tables and the picture: what `make coverage` found, for people and for programs.

In: rows by precision, versions. Out: `docs/coverage.md`, `docs/coverage.json`, `docs/coverage.svg`. Pairs without a
row are told as not run.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matrix.one import PROBES, SOUND
from matrix.pairs import Pair

Row = Mapping[str, Any]
# In the order of the picture, with their colours: from right to not tried.
RESULTS = {
    "right": "#2e7d32",
    "narrowed": "#9ccc65",
    "plain": "#4fc3f7",
    "beyond": "#fff176",
    "refused": "#ffb74d",
    "died": "#e57373",
    "out of time": "#ba68c8",
    "wrong": "#b71c1c",
    "no model": "#bdbdbd",
}
_PACKAGES = ("torch", "intel-extension-for-pytorch", "transformers")

_HEAD = """# What can be exported

Every pair of model type and task that transformers knows, tried: a tiny random model of the model type's own default
configuration, saved as a folder, exported with IPEX, compared with the original in eager fp32 by the gate, loaded
without transformers, and then asked at {probes} more shapes that the gate had not tried. Written by `make coverage` on
{date} with {versions}, one thread a pair. All rows, with their errors: [coverage.json](coverage.json).

![Results by task](coverage.svg)

- **right**: at every shape that is declared, with IPEX.
- **narrowed**: right with IPEX at every shape that the artifact declares; these are fewer than the model admits, and
  the session refuses the others by name. Most of these are image models that keep the size they are traced at, which
  is the one size that their image processors make.
- **plain**: right, but without IPEX.
- **refused**: no file is written; the reason is below. **died** and **out of time** are refusals without a name.
- **beyond**: a file is written, and at one of the shapes asked for afterwards its error exceeds the tolerance, by less
  than as much again: rounding of bf16, not a wrong answer.
- **wrong**: a file was written that gives a wrong answer somewhere. There must be none.
- **no model**: no tiny model could be built to try it with.

*Encoders* are the model types that a table of an encoder's task lists and no table of generators does, or that have a
masked language model. *Others* are known to AutoModel alone: parts of larger models, codecs, time series.
"""


def write(folder: Path, pairs: Sequence[Pair], rows: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Write all three files.

    Args:
        folder: where to.
        pairs: all of them.
        rows: precision → name of the pair → its row.

    Returns:
        The totals, a line a precision and kind, for people.
    """
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    date = datetime.date.today().isoformat()
    text = [_HEAD.format(probes=PROBES, date=date, versions=", ".join(f"{k} {v}" for k, v in versions.items()))]
    totals = [line for precision in rows for line in _totals(precision, pairs, rows[precision])]
    text += ["## Totals", "", *totals, ""]
    for precision in rows:
        text += [f"## Encoders by task, {precision}", "", *_by_task(pairs, rows[precision]), ""]
    for precision in rows:
        text += [f"## Pairs that are not right, {precision}", "", *_reasons(pairs, rows[precision]), ""]
    (folder / "coverage.md").write_text("\n".join(text))
    content = {"date": date, "versions": versions, "rows": {name: list(found.values()) for name, found in rows.items()}}
    (folder / "coverage.json").write_text(json.dumps(content, indent=0) + "\n")
    (folder / "coverage.svg").write_text(_picture(pairs, rows["fp32"]))
    return totals


def _totals(precision: str, pairs: Sequence[Pair], rows: Mapping[str, Row]) -> list[str]:
    lines = [
        f"**{precision}**",
        "",
        "| | pairs | run | " + " | ".join(RESULTS) + " | right or narrowed | median seconds |",
        "|---|" + "---|" * (len(RESULTS) + 4),
    ]
    for kind, name in (("encoder", "encoders"), ("generator", "generators"), ("other", "others"), (None, "all")):
        mine = [pair for pair in pairs if kind in (pair.kind, None)]
        found = [rows[pair.name] for pair in mine if pair.name in rows]
        counts = Counter(row["result"] for row in found)
        sound = sum(counts[name] for name in SOUND)
        seconds = [row["seconds"] for row in found if row["seconds"] is not None and row["result"] in SOUND]
        share = f"{100 * sound / len(found):.1f} %" if found else "–"
        middle = f"{statistics.median(seconds):.1f}" if seconds else "–"
        cells = " | ".join(str(counts[result]) for result in RESULTS)
        lines.append(f"| {name} | {len(mine)} | {len(found)} | {cells} | {share} | {middle} |")
    return [*lines, ""]


def _by_task(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> list[str]:
    lines = [
        "| task | pairs | " + " | ".join(RESULTS) + " | largest error |",
        "|---|---|" + "---|" * (len(RESULTS) + 1),
    ]
    for task, found in _tasks(pairs, rows).items():
        counts = Counter(row["result"] for row in found)
        errors = [row["max_error"] for row in found if row["max_error"] is not None]
        cells = " | ".join(str(counts[name] or "") for name in RESULTS)
        lines.append(f"| {task} | {len(found)} | {cells} | {max(errors):.1e} |" if errors else f"| {task} | 0 |")
    return lines


def _tasks(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for pair in pairs:
        if pair.kind == "encoder" and pair.name in rows:
            found.setdefault(pair.task, []).append(rows[pair.name])
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _reasons(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> list[str]:
    lines = []
    for kind in ("encoder", "generator", "other"):
        found = [rows[pair.name] for pair in pairs if pair.kind == kind and pair.name in rows]
        found = [row for row in found if row["result"] != "right"]
        if not found:
            continue
        table = ["| model type | task | result | reason |", "|---|---|---|---|"]
        for row in found:
            reason = row["reason"].replace("|", "/")
            table.append(f"| {row['model_type']} | {row['task']} | {row['result']} | {reason} |")
        if kind == "encoder":
            lines += [f"### {kind}s", "", *table, ""]
        else:
            lines += [f"<details><summary>{kind}s: {len(found)}</summary>", "", *table, "", "</details>", ""]
    return lines


def _picture(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> str:
    """A bar a task, its parts as long as its results are many."""
    tasks = _tasks(pairs, rows)
    most = max((len(found) for found in tasks.values()), default=1)
    left, width, height = 240, 620, 24
    parts = []
    for number, (task, found) in enumerate(tasks.items()):
        top, start = 70 + number * height, float(left)
        counts = Counter(row["result"] for row in found)
        parts.append(f'<text x="{left - 10}" y="{top + 15}" text-anchor="end">{task}</text>')
        for name, colour in RESULTS.items():
            length = width * counts[name] / most
            if length:
                title = f"<title>{task}: {counts[name]} {name}</title>"
                box = f'x="{start:.1f}" y="{top}" width="{length:.1f}" height="{height - 5}"'
                parts.append(f'<rect {box} fill="{colour}">{title}</rect>')
            start += length
        sound = sum(counts[name] for name in SOUND)
        parts.append(f'<text x="{start + 6:.1f}" y="{top + 15}">{sound} of {len(found)}</text>')
    place = left
    for name, colour in RESULTS.items():
        if any(row["result"] == name for found in tasks.values() for row in found):
            parts.append(f'<rect x="{place}" y="40" width="12" height="12" fill="{colour}"/>')
            parts.append(f'<text x="{place + 17}" y="51">{name}</text>')
            place += 30 + 8 * len(name)
    size = f'width="960" height="{80 + len(tasks) * height}"'
    title = '<text x="16" y="24" font-size="16">Encoders in fp32 with IPEX: pairs of model type and task</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
        '<rect width="100%" height="100%" fill="white"/>' + title + "".join(parts) + "</svg>\n"
    )
