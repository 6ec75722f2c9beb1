"""The section of docs/coverage.md that lists layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, reports, tables
from tests.model_matrix import sections

Row = Mapping[str, Any]
RESULTS = ("right", "refused", "unclear", "wrong", "died", "out of time", "unbuilt")
# What must not happen.
DEFECTS = ("wrong", "died", "unclear", "unbuilt")
_PACKAGES = ("torch", "intel-extension-for-pytorch", "transformers", "sentence-transformers")

_HEAD = """## Published folders

{count} folders of the hub, each with the files and the keys that it has there, tiny random weights of the same
architecture and a small tokenizer of the same kind. Each is exported without an option, in {precision}, with
{versions}. The file, loaded in another process, is asked for what the authors' library answers for the same folder:
sentence-transformers, a pipeline of transformers, or the folder's own processor and its model. Written by
`make coverage ARGS=--layouts`.

- **right**: the same answers. Vectors: cosine at least 0.99999, lengths to a thousandth. Scores: to 1/10,000 of the
  largest, answers and masks to a thousandth, with the same entities, spans and tokens. Outputs of images and sounds:
  to a thousandth of the largest value.
- **refused**: no file, or a file that refuses the call; the message names the cause and what to do. Some folders have
  to be refused.
- **unclear**: a folder that must be refused was, and the message does not name the cause.
- **wrong**: a file was written that gives another answer, or for a folder that must be refused. There must be none.

The table is made without the comparison of speeds (`--tune off`): it writes the first of the forms that is right,
which is IPEX's. On a busy machine the fastest form would be another each time, and the table would not say of which
form it speaks. Seconds are those of the export, with one thread, beside others on the same machine.
"""


def write(folder: Path, rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Write the section and coverage-layouts.json.

    Args:
        folder: where docs/coverage.md is.
        rows: by precision.

    Returns:
        The totals, line by line.
    """
    versions = machine.versions(_PACKAGES)
    reports.save_raw(folder, "coverage-layouts", {"versions": versions, "rows": {k: list(v) for k, v in rows.items()}})
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines, totals = [], []
    for precision, found in rows.items():
        totals += _totals(found)
        lines += [_HEAD.format(count=len(found), precision=precision, versions=shown), *totals, "", *_table(found)]
    sections.write(folder / "coverage.md", "layouts", lines)
    return totals


def _totals(rows: Sequence[Row]) -> list[str]:
    body = []
    for area in [*dict.fromkeys(row["area"] for row in rows), "all"]:
        mine = [row for row in rows if area in (row["area"], "all")]
        counts = Counter(row["result"] for row in mine)
        meant = sum(row["must"] == "be refused" for row in mine)
        body.append([area, str(len(mine)), str(meant or ""), *(str(counts[name] or "") for name in RESULTS)])
    return tables.table(["", "folders", "must be refused", *RESULTS], body)


def _table(rows: Sequence[Row]) -> list[str]:
    body = []
    for row in rows:
        error = "" if row["max_error"] is None else f"{row['max_error']:.0e}"
        seconds = tables.number(row["seconds"], 1)
        must = " (must be)" if row["must"] == "be refused" else ""
        body.append([row["layout"], row["area"], row["answers"], row["result"] + must, error, seconds, row["date"]])
    head = ["folder", "area", "compared with", "result", "largest error", "seconds", "date"]
    reasons = [f"- **{row['result']}**: {row['layout']}: {row['reason']}" for row in rows if row["result"] != "right"]
    return [*tables.table(head, body), "", "### Folders that are not right", "", *reasons]
