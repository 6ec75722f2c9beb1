"""`python -m benchmarks.trainer`: the Trainer in jit mode against eager mode: metric and samples per second.

Needs the models that examples/finetune made in build/finetune (`make finetune`), and environments as NAME=PYTHON.
Writes docs/benchmarks/trainer.json and .md. It stops if jit mode fell back to eager mode.

Each row is a separate process: a task, a precision, with or without IPEX. It evaluates the validation file in eager
mode and in jit mode in turn; the fastest of each counts, since noise only slows down. Tracing and comparing are timed
separately, as the Trainer does. bf16 in eager mode is the Trainer's `bf16_full_eval`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import machine, places, reports, tables
from benchmarks.trainer_row import TASKS
from exporter.verification.subprocesses import module

# How far a metric in jit mode may be from eager mode's, in points of 100.
WITHIN = {"fp32": 0.1, "bf16": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environments", nargs="*", metavar="NAME=PYTHON", help="default: this Python")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pythons = [pair.partition("=")[2] for pair in options.environments] or [sys.executable]  # clean start: in _row
    rows = []
    for python in pythons:
        for task in TASKS:
            for precision in WITHIN:
                for ipex in (True, False):
                    asked = {"task": task, "precision": precision, "ipex": ipex}
                    rows.append(_row(python, asked, options.rounds))
                    print(_line(rows[-1]), flush=True)
    result = {"machine": machine.description(), "rounds": options.rounds, "rows": rows}
    reports.save_raw(places.OUTPUT, "trainer", result)
    report(result)


def report(result: Mapping[str, Any]) -> None:
    """Write the page; print the rows that were not faster, or whose metric moved."""
    rows = result["rows"]
    reports.save_page(places.OUTPUT, "trainer", _page(result))
    missed = [_line(row) for row in rows if not _holds(row)]
    print(f"{len(rows) - len(missed)} of {len(rows)} rows: metric as in eager mode, and faster")
    if missed:
        print("\n".join(["not so:", *missed]))


def _row(python: str, asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    command = [*module("benchmarks.trainer_row", executable=python), json.dumps(asked | {"rounds": rounds})]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=places.ROOT, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"{asked}: {done.stderr.strip().splitlines()[-1]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _holds(row: dict[str, Any]) -> bool:
    values, speed = row["values"], row["samples_per_second"]
    same = abs(values["jit"] - values["eager"]) <= WITHIN[row["precision"]] + 1e-9
    return bool(same and speed["jit"] > speed["eager"])


def _cells(row: dict[str, Any]) -> list[str]:
    values, speed = row["values"], row["samples_per_second"]
    return [
        row["transformers"],
        row["task"],
        row["precision"],
        "IPEX" if row["ipex"] else "without",
        f"{row['metric']} {values['eager']:.2f}",
        f"{values['jit']:.2f}",
        f"{speed['eager']:.0f}",
        f"{speed['jit']:.0f}",
        f"{speed['jit'] / speed['eager']:.2f}",
        f"{row['jit_seconds']:.1f}",
    ]


def _line(row: dict[str, Any]) -> str:
    return "  ".join(_cells(row))


def _page(result: Mapping[str, Any]) -> str:
    head = [
        "transformers",
        "task",
        "precision",
        "",
        "eager",
        "jit",
        "eager, samples/s",
        "jit, samples/s",
        "ratio",
        "tracing, s",
    ]
    lines = [
        "# The Trainer's jit mode against eager mode",
        "",
        f"`make bench-trainer`, {result['machine']}; the fastest of {result['rounds']} rounds each. Models: MiniLM,",
        "fine-tuned by [examples/finetune](../../examples/finetune/finetune.py); metrics in points of 100, on the",
        "validation files there.",
        "Without IPEX the trace uses PyTorch's own oneDNN operators.",
        "",
        *tables.table(head, [_cells(row) for row in result["rows"]], ["task", "precision", "", "eager"]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
