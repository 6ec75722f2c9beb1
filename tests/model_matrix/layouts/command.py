"""`make coverage` with `--layouts`: try the layouts that are missing, and write the second table."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.model_matrix.layouts import page
from tests.model_matrix.layouts.layout import Layout
from tests.model_matrix.layouts.published import SAMPLE, all_layouts
from tests.model_matrix.processes import run_layouts


def run(arguments: argparse.Namespace, build: Path, docs: Path, precision: str) -> int:
    """Run what is missing.

    Args:
        arguments: of the program.
        build: the folder of the rows.
        docs: the folder of the page.
        precision: `fp32` or `bf16`.

    Returns:
        1 if an artifact was wrong, a message did not name its cause, or the exporter failed because of a defect.
    """
    chosen = [one for one in all_layouts() if _wanted(one, arguments)]
    build.mkdir(parents=True, exist_ok=True)
    path = build / f"layouts-{precision}.jsonl"
    if arguments.fresh:
        path.unlink(missing_ok=True)
    done = read_rows(path)
    again = {"unbuilt", *arguments.again}
    todo = [one for one in chosen if one.name not in done or done[one.name]["result"] in again]
    print(f"{len(chosen)} layouts, {len(todo)} to do, {precision}", flush=True)
    with path.open("a") as file:
        for number, row in enumerate(run_layouts(todo, precision, arguments.jobs), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            took = f"{row['seconds']:5.1f} s" if row["seconds"] is not None else "      –"
            print(
                f"{number:4}/{len(todo)} {row['result']:11} {took} {row['layout']}: {row['reason'][:200]}", flush=True
            )
    done = read_rows(path)
    found = [done[one.name] for one in chosen if one.name in done]
    print(", ".join(f"{count} {name}" for name, count in Counter(row["result"] for row in found).most_common()))
    if len(chosen) == len(all_layouts()):
        print("\n".join(page.write(docs, {precision: found})))
    return 1 if any(row["result"] in page.DEFECTS for row in found) else 0


def _wanted(layout: Layout, arguments: argparse.Namespace) -> bool:
    if arguments.sample and layout.name not in SAMPLE:
        return False
    names: Sequence[str] = arguments.only or []
    return not names or any(text in f"{layout.area} {layout.name}" for text in names)


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The last row of each layout, by its name."""
    if not path.exists():
        return {}
    found = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {row["layout"]: row for row in found}
