"""`make coverage`: try every pair of model type and task, and write the tables.

    python -m tests.model_matrix [--bf16] [--backend NAME] [--sample N] [--seed S] [--kind KIND] [--task TASK]
        [--only TEXT …] [--again RESULT …] [--jobs N] [--fresh] [--report-only] [--layouts]

With `--layouts` it tries published folders instead (`tests.model_matrix.layouts`), and writes the second table;
`--sample` then takes those of `layouts.published.SAMPLE`. Prints one line per pair or folder. Rows are appended to
`build/coverage/PRECISION.jsonl`, `PRECISION-BACKEND.jsonl` and `layouts-PRECISION.jsonl`, so that an interrupted run
can be continued. The tables in `docs/` are written unless a sample or names were requested; with `--kind` or `--task`
it is a section of its own, of these pairs alone, and the precision's section stays as it is. The exit code is 1 if an
artifact was wrong, or the exporter failed because of a defect.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from exporter.config.request import BACKEND_CHOICES
from tests.model_matrix import report
from tests.model_matrix.layouts import command
from tests.model_matrix.pairs import Pair, all_pairs, sample
from tests.model_matrix.processes import run_all

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build" / "coverage"
PRECISIONS = ("fp32", "bf16")
# What must not happen, whatever the model.
DEFECTS = ("wrong", "died")


def main() -> int:
    """Run what is missing."""
    arguments = _arguments()
    if arguments.report_only:
        report.write(ROOT / "docs", all_pairs(), report.load(ROOT / "docs"))
        return 0
    precision = PRECISIONS[arguments.bf16]
    if arguments.layouts:
        return command.run(arguments, BUILD, ROOT / "docs", precision)
    pairs = sample(arguments.sample, arguments.seed) if arguments.sample else all_pairs()
    pairs = tuple(
        pair
        for pair in pairs
        if (not arguments.kind or pair.kind == arguments.kind)
        and (not arguments.task or pair.task == arguments.task)
        and (not arguments.only or any(text in pair.name for text in arguments.only))
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    label = precision if arguments.backend == "auto" else f"{precision}-{arguments.backend}"
    path = BUILD / f"{label}.jsonl"
    if arguments.fresh:
        path.unlink(missing_ok=True)
    done = read_rows(path)
    todo = [pair for pair in pairs if pair.name not in done or done[pair.name]["result"] in arguments.again]
    print(f"{len(pairs)} pairs, {len(todo)} to do, {label}", flush=True)
    with path.open("a") as file:
        for number, row in enumerate(run_all(todo, precision, arguments.jobs, arguments.backend), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            took = f"{row['seconds']:5.1f} s" if row["seconds"] is not None else "      –"
            name = f"{row['model_type']} {row['task']}"
            print(f"{number:4}/{len(todo)} {row['result']:11} {took} {name}: {row['reason'][:150]}", flush=True)
    done = read_rows(path)
    found = [done[pair.name] for pair in pairs if pair.name in done]
    print(", ".join(f"{count} {name}" for name, count in Counter(row["result"] for row in found).most_common()))
    if not arguments.sample and not arguments.only:
        print("\n".join(_write(arguments, label, pairs, done, found)))
    return 1 if any(row["result"] in DEFECTS for row in found) else 0


def _write(
    arguments: argparse.Namespace,
    label: str,
    pairs: tuple[Pair, ...],
    done: dict[str, dict[str, Any]],
    found: list[dict[str, Any]],
) -> list[str]:
    if arguments.task == report.GENERATION:
        return report.write_generation(ROOT / "docs", {label: {row["model_type"]: row for row in found}})
    narrowed = [name for name in (arguments.kind, arguments.task) if name]
    if narrowed:
        rows = {f"{row['model_type']} {row['task']}": row for row in found}
        return report.write_part(ROOT / "docs", pairs, report.gather({"-".join([label, *narrowed]): rows}))
    return report.write(ROOT / "docs", all_pairs(), report.gather({label: done}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model_matrix", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bf16", action="store_true", help="instead of fp32")
    parser.add_argument("--sample", type=int, metavar="N", help="N pairs of encoders instead of all pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--kind", choices=("encoder", "generator", "other"), help="only model types of this kind")
    parser.add_argument("--task", help="only pairs with this task")
    parser.add_argument("--backend", choices=BACKEND_CHOICES, default="auto", help="instead of the one that auto takes")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only pairs whose name contains one of these")
    parser.add_argument("--again", nargs="+", default=[], metavar="RESULT", help="repeat pairs that ended so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--fresh", action="store_true", help="forget the rows of earlier runs")
    parser.add_argument("--layouts", action="store_true", help="folders of the hub instead of model types and tasks")
    parser.add_argument("--report-only", action="store_true", help="write page and picture from docs/coverage.json")
    return parser.parse_args()


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The last row of each pair, by its name."""
    if not path.exists():
        return {}
    found = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {f"{row['model_type']} {row['task']}": row for row in found}


if __name__ == "__main__":
    sys.exit(main())
