"""`make coverage`: try every pair of model type and task, and write the tables.

In: `python -m matrix [--bf16] [--sample N] [--seed S] [--only TEXT …] [--jobs N] [--again RESULT …]`. Out: a line a pair
on standard output, rows in `build/coverage/PRECISION.jsonl` as they come, so that a run can be resumed; exit code 1 if
any artifact was wrong. Refuses nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from matrix.pairs import all_pairs, sample
from matrix.processes import run_all

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "coverage"


def main() -> int:
    """Run what is missing."""
    arguments = _arguments()
    precision = "bf16" if arguments.bf16 else "fp32"
    pairs = sample(arguments.sample, arguments.seed) if arguments.sample else all_pairs()
    if arguments.kind:
        pairs = tuple(pair for pair in pairs if pair.kind == arguments.kind)
    if arguments.only:
        pairs = tuple(pair for pair in pairs if any(text in pair.name for text in arguments.only))
    BUILD.mkdir(parents=True, exist_ok=True)
    rows = BUILD / f"{precision}.jsonl"
    done = read_rows(rows)
    todo = [pair for pair in pairs if pair.name not in done or done[pair.name]["result"] in arguments.again]
    print(f"{len(pairs)} pairs, {len(todo)} to do, {precision}", flush=True)
    with rows.open("a") as file:
        for row in run_all(todo, precision, arguments.jobs):
            file.write(json.dumps(row) + "\n")
            file.flush()
            took = f"{row['seconds']:5.1f} s" if row["seconds"] is not None else "   –   "
            print(f"{row['result']:11} {took} {row['model_type']} {row['task']}: {row['reason'][:180]}", flush=True)
    done = read_rows(rows)
    return 1 if any(done[pair.name]["result"] == "wrong" for pair in pairs if pair.name in done) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m matrix", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bf16", action="store_true", help="instead of fp32")
    parser.add_argument("--sample", type=int, metavar="N", help="N pairs of encoders instead of all pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--kind", choices=("encoder", "generator", "other"), help="only model types of this kind")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only pairs whose name contains one of these")
    parser.add_argument("--again", nargs="+", default=[], metavar="RESULT", help="repeat pairs that ended so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    return parser.parse_args()


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The last row of each pair, by its name."""
    if not path.exists():
        return {}
    found = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {f"{row['model_type']} {row['task']}": row for row in found}


if __name__ == "__main__":
    sys.exit(main())
