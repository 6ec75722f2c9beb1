"""One row of `benchmarks.trainer`, in a separate process: a task, a precision, with or without IPEX.

The row is JSON on the command line, and the figures are printed as a line of JSON. It runs in each environment that is
compared, so it needs only what the Trainer needs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.harness import places

MODELS = places.ROOT / "build/finetune"
# Task → its validation file, and the longest example in tokens.
TASKS = {
    "text-classification": ("classification.csv", 128),
    "token-classification": ("entities.conll", 128),
    "question-answering": ("answers.json", 384),
}


def measure(task: str, precision: str, ipex: bool, rounds: int) -> dict[str, Any]:
    """One row, in this process."""
    import transformers

    from exporter.evaluation import evaluation_for
    from exporter.trainer import JitTrainer, evaluate_rows

    ending, length = TASKS[task]
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


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
