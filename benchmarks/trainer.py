"""`python -m benchmarks.trainer`: the Trainer in jit mode against eager mode, metric and samples a second.

In: models that examples/finetune made in build/finetune (`make finetune`), environments as NAME=PYTHON. Out: a table,
docs/benchmarks/trainer.json and trainer.md. Refuses to go on where jit mode fell back to eager mode.

Each row is a process of its own: a task, a precision, with IPEX or without. It evaluates the validation file in eager
mode, then in jit mode, and so on in turn; the fastest of each counts, since noise only slows down. Tracing and
comparing are counted apart, as the Trainer does. bf16 in eager mode is the Trainer's `bf16_full_eval`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.bars import processor
from exporter.processes import module

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "docs/benchmarks"
MODELS = ROOT / "build/finetune"
FILES = {
    "text-classification": ("classification.csv", 128),
    "token-classification": ("entities.conll", 128),
    "question-answering": ("answers.json", 384),
}
# How far a metric in jit mode may be from eager mode's, in points of 100.
WITHIN = {"fp32": 0.1, "bf16": 0.5}


def measure(task: str, precision: str, ipex: bool, rounds: int) -> dict[str, Any]:
    """One row, in this process."""
    import transformers

    from exporter.evaluation import evaluation_for
    from exporter.trainer import JitTrainer, evaluate_rows

    ending, length = FILES[task]
    auto = {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "question-answering": transformers.AutoModelForQuestionAnswering,
    }[task]
    folder = MODELS / task
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    arguments = transformers.TrainingArguments(
        "build/trainer", bf16_full_eval=precision == "bf16", use_cpu=True, report_to=[], disable_tqdm=True
    )

    def trainer(**jit: bool) -> tuple[JitTrainer, Any]:
        model = auto.from_pretrained(folder)
        labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
        evaluation = evaluation_for(task, tokenizer, labels, length)
        return JitTrainer(model, arguments, data_collator=evaluation.collate, jit_strict=True, **jit), evaluation

    eager, evaluation = trainer()
    jit, _ = trainer(jit_mode_eval=True, use_ipex=ipex)
    rows = evaluation.read(MODELS / f"data/validation.{ending}")
    found: dict[str, list[dict[str, float]]] = {"eager": [], "jit": []}
    for _ in range(rounds):
        for name, one in (("eager", eager), ("jit", jit)):
            found[name].append(evaluate_rows(one, evaluation, rows)[0])
    main = f"eval_{evaluation.main}"
    return {
        "task": task,
        "precision": precision,
        "ipex": ipex,
        "examples": len(rows),
        "metric": evaluation.main,
        "values": {name: runs[0][main] for name, runs in found.items()},
        "loss": {name: runs[0]["eval_loss"] for name, runs in found.items()},
        "samples_per_second": {
            name: max(run["eval_samples_per_second"] for run in runs) for name, runs in found.items()
        },
        "jit_seconds": found["jit"][0]["eval_jit_compilation_time"],
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("environments", nargs="*", metavar="NAME=PYTHON", help="default: this Python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", help=argparse.SUPPRESS)  # a row as JSON: measured in this process, printed
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(**json.loads(options.row), rounds=options.rounds)))
        return
    pythons = [pair.partition("=")[2] for pair in options.environments] or [sys.executable]  # clean start: in _row
    rows = []
    for python in pythons:
        for task in FILES:
            for precision in WITHIN:
                for ipex in (True, False):
                    asked = {"task": task, "precision": precision, "ipex": ipex}
                    rows.append(_row(python, asked, options.rounds))
                    print(_line(rows[-1]), flush=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    result = {"machine": f"{os.cpu_count()} cores, {processor()}", "rounds": options.rounds, "rows": rows}
    (OUTPUT / "trainer.json").write_text(json.dumps(result, indent=1) + "\n")
    (OUTPUT / "trainer.md").write_text(_table(result))
    missed = [_line(row) for row in rows if not _holds(row)]
    print(f"{len(rows) - len(missed)} of {len(rows)} rows: metric as in eager mode, and faster")
    if missed:
        print("\n".join(["not so:", *missed]))


def _row(python: str, asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    command = [*module("benchmarks.trainer", executable=python), "--rounds", str(rounds), "--row", json.dumps(asked)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
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


def _table(result: dict[str, Any]) -> str:
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
        *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *map(_cells, result["rows"]))),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
