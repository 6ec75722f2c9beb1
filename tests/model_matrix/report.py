"""Write the results of `make coverage`: docs/coverage.md and .svg, and the raw rows in coverage.json.

coverage.json is not part of the repository. Pairs without a row are listed as not run.
"""

from __future__ import annotations

import datetime
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import charts, machine, reports, tables
from tests.model_matrix import sections
from tests.model_matrix.one import PROBES, SOUND
from tests.model_matrix.pairs import Pair

Row = Mapping[str, Any]
# The task with a section of its own.
GENERATION = "text-generation"
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
# Refusals of models whose cache is not keys and values (`exporter.loading.generation_settings.cache_sizes`).
_OTHER_CACHE = re.compile("keeps a state|takes no past_key_values|lets a token see|keeps nothing|keeps tensors of")
_PACKAGES = ("torch", "intel-extension-for-pytorch", "transformers")

_HEAD = """# What can be exported

Every pair of model type and task that transformers knows, tried: a tiny random model of the model type's own default
configuration, saved as a folder, exported with the backend that `auto` takes without timing, compared with the
original in eager fp32 by the gate, loaded without transformers, and then asked at {probes} more shapes that the gate
had not tried. Written by `make coverage`, a precision at a time: each section tells when and where. It also leaves
every row, with its error, in coverage.json beside this page.

![Results by task](coverage.svg)

- **right**: at every shape that is declared, with IPEX, oneDNN's operators or the project's own.
- **narrowed**: right with these at every shape that the artifact declares; these are fewer than the model admits, and
  the session refuses the others by name. Most of these are image models that keep the size they are traced at, which
  is the one size that their image processors make.
- **plain**: right, but as the trace is, without any of these operators.
- **refused**: no file is written; the reason is below. **died** and **out of time** are refusals without a name.
- **beyond**: a file is written, and at one of the shapes asked for afterwards its error exceeds the tolerance, by less
  than as much again, or is less than twice that of the original model in eager bf16: rounding of bf16, not a wrong
  answer; or the original in float64 answers as the file does (models that rank, near a tie).
- **wrong**: a file was written that gives a wrong answer somewhere. There must be none.
- **no model**: no tiny model could be built to try it with.

*Encoders* are the model types that a table of an encoder's task lists and no table of generators does, or that have a
masked language model. *Others* are known to AutoModel alone: parts of larger models, codecs, time series.
"fp32-native" and the like are files of the backend of that name, asked for by `--backend`.
"""

_TRIED = """## {label}

Tried on {date}, one thread a pair, with {versions}, on {processor}.
"""

_GENERATION = """## Language models that write text

Every model type with a class for causal language models, made tiny as above and exported for `text-generation`: the
file's logits are those of eager fp32 with the prompt at once, token by token, in pieces, and beside other rows. The
last column says how many greedy tokens, behind each of two prompts, are those of transformers' `generate` up to the
first difference. Written by `make coverage ARGS="--task text-generation"` on {date}, one thread a pair, with
{versions}, on {processor}.
"""


def gather(rows: Mapping[str, Mapping[str, Row]]) -> dict[str, Any]:
    """The raw result: rows by precision and name of the pair, with the date and the versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "versions": machine.versions(_PACKAGES),
        "processor": f"{machine.processor()} ({machine.level()})",
        "rows": {name: list(found.values()) for name, found in rows.items()},
    }


def load(folder: Path) -> dict[str, Any]:
    """The raw result of an earlier run; ends the program with a message if there is none."""
    return reports.load_raw(folder, "coverage")


def write(folder: Path, pairs: Sequence[Pair], result: Mapping[str, Any]) -> list[str]:
    """Write a section for each precision, the picture of fp32, and the raw rows; other sections stay as they are.

    Args:
        folder: where to.
        pairs: all of them; those that write text have a section of their own.
        result: as `gather` or `load` gives it.

    Returns:
        The totals, a table for each precision, line by line.
    """
    reports.save_raw(folder, "coverage", result)
    pairs = [pair for pair in pairs if pair.task != GENERATION]
    totals = write_part(folder, pairs, result)
    if "fp32" in result["rows"]:
        rows = {f"{row['model_type']} {row['task']}": row for row in result["rows"]["fp32"]}
        reports.write_whole(folder / "coverage.svg", charts.svg(_picture(pairs, rows)))
    return totals


def write_part(folder: Path, pairs: Sequence[Pair], result: Mapping[str, Any]) -> list[str]:
    """Write a section for each name of rows in `result`, about `pairs` alone; returns the totals, line by line."""
    about = {
        "date": result["date"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "processor": result["processor"],
    }
    totals = []
    for label, found in result["rows"].items():
        rows = {f"{row['model_type']} {row['task']}": row for row in found}
        counted = _totals(pairs, rows)
        totals += [f"**{label}**", "", *counted, ""]
        text = [_TRIED.format(label=label, **about), *counted, ""]
        if _tasks(pairs, rows):
            text += ["### Encoders by task", "", *_by_task(pairs, rows), ""]
        text += ["### Pairs that are not right", "", *_reasons(pairs, rows)]
        sections.write(folder / "coverage.md", label, text, _HEAD.format(probes=PROBES))
    return totals


def _totals(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> list[str]:
    body = []
    for kind, name in (("encoder", "encoders"), ("generator", "generators"), ("other", "others"), (None, "all")):
        mine = [pair for pair in pairs if kind in (pair.kind, None)]
        if not mine:
            continue
        found = [rows[pair.name] for pair in mine if pair.name in rows]
        counts = Counter(row["result"] for row in found)
        sound = sum(counts[name] for name in SOUND)
        seconds = [row["seconds"] for row in found if row["seconds"] is not None and row["result"] in SOUND]
        share = f"{100 * sound / len(found):.1f} %" if found else tables.DASH
        cells = [str(counts[result]) for result in RESULTS]
        middle = tables.number(statistics.median(seconds) if seconds else None, 1)
        body.append([name, str(len(mine)), str(len(found)), *cells, share, middle])
    head = ["", "pairs", "run", *RESULTS, "right or narrowed", "median seconds"]
    return tables.table(head, body)


def _by_task(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> list[str]:
    body = []
    for task, found in _tasks(pairs, rows).items():
        counts = Counter(row["result"] for row in found)
        errors = [row["max_error"] for row in found if row["max_error"] is not None]
        largest = f"{max(errors):.1e}" if errors else tables.DASH
        body.append([task, str(len(found)), *(str(counts[name] or "") for name in RESULTS), largest])
    return tables.table(["task", "pairs", *RESULTS, "largest error"], body)


def write_generation(folder: Path, rows: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Write the section about language models that write text, a table for each precision.

    Args:
        folder: where docs/coverage.md is.
        rows: of the task `text-generation`, by precision and name of the pair.

    Returns:
        The totals, line by line.
    """
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions(_PACKAGES).items())
    date, processor = datetime.date.today().isoformat(), f"{machine.processor()} ({machine.level()})"
    lines = [_GENERATION.format(date=date, versions=versions, processor=processor)]
    totals = []
    for precision, found in rows.items():
        counts = Counter(row["result"] for row in found.values())
        other = sum(bool(row["result"] == "refused" and _OTHER_CACHE.search(row["reason"])) for row in found.values())
        able = len(found) - other - counts["no model"]
        sound = sum(counts[name] for name in SOUND)
        totals.append(
            f"**{precision}**: {len(found)} model types: "
            f"{', '.join(f'{counts[name]} {name}' for name in RESULTS if counts[name])}. "
            f"{other} were refused because what they keep is not keys and values alone; "
            f"of the {able} others {sound} are right ({100 * sound / max(able, 1):.1f} %)."
        )
        body = [
            [row["model_type"], row["result"], row["backend"] or tables.DASH, row["generated"] or tables.DASH]
            for row in found.values()
        ]
        reasons = [
            f"- **{row['result']}**: {row['model_type']}: {row['reason']}"
            for row in found.values()
            if row["result"] != "right"
        ]
        head = ["model type", "result", "backend", "greedy tokens equal"]
        lines += [totals[-1], "", *tables.table(head, body), "", f"### Not right, {precision}", "", *reasons, ""]
    sections.write(folder / "coverage.md", "generation", lines)
    return totals


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
        items = [
            f"- **{row['result']}**: {row['model_type']}, {row['task']}: {row['reason']}"
            for row in found
            if row["result"] != "right"
        ]
        if items and kind == "encoder":
            lines += [f"#### {kind}s", "", *items, ""]
        elif items:
            lines += [f"<details><summary>{kind}s: {len(items)}</summary>", "", *items, "", "</details>", ""]
    return lines


def _picture(pairs: Sequence[Pair], rows: Mapping[str, Row]) -> charts.Figure:
    """A bar per task, its parts as long as its results are many."""
    counts = {task: Counter(str(row["result"]) for row in found) for task, found in _tasks(pairs, rows).items()}
    labels = {task: f"{sum(found[name] for name in SOUND)} of {found.total()}" for task, found in counts.items()}
    return charts.stacked("Encoders in fp32: pairs of model type and task", counts, RESULTS, labels)
