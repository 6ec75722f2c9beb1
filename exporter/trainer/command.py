"""The command line of the examples: evaluate a fine-tuned model on a file, in jit mode or in eager mode.

Prints metrics and samples per second; with --do_predict, writes one prediction per row into predictions.jsonl. Files
and models that do not fit are reported in one line with exit code 1, a wrong command line with 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, TrainingArguments

from exporter.evaluation import evaluation_for
from exporter.trainer.evaluate import evaluate_rows
from exporter.trainer.mixin import JitTrainer
from runtime.errors import ExportedModelError

_FLAGS = {
    "do_eval": "print the metrics on the validation file",
    "do_predict": "write one prediction per row",
    "jit_mode_eval": "use a traced model",
    "use_ipex": "optimise it with IPEX first",
    "bf16": "in bf16",
    "strict": "end with an error if jit mode would fall back to eager mode",
}


def run(task: str, auto_class: Any, row_name: str, length: int, argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate, print.

    Args:
        task: one that has an evaluation.
        auto_class: of transformers, which loads the model.
        row_name: the field of a row that is written beside its prediction.
        length: the most tokens, by default.
        argv: the command line; None: that of the process.
    """
    parser = argparse.ArgumentParser(description=f"Evaluate a model for {task}, in jit mode or in eager mode.")
    parser.add_argument("--model_name_or_path", required=True, metavar="FOLDER")
    parser.add_argument("--validation_file", metavar="FILE", help="labelled examples, for --do_eval")
    parser.add_argument("--test_file", metavar="FILE", help="for --do_predict; default: the validation file")
    parser.add_argument("--output_dir", type=Path, default=Path("build") / task, metavar="FOLDER")
    parser.add_argument("--max_seq_length", type=int, default=length, metavar="TOKENS")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=8, metavar="N")
    for flag, text in _FLAGS.items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    options = parser.parse_args(argv)
    options.test_file = options.test_file or options.validation_file
    if not (options.do_eval and options.validation_file or options.do_predict and options.test_file):
        parser.error("give --do_eval or --do_predict, and a file for it")
    try:
        _run(task, auto_class, row_name, options)
    except ExportedModelError as error:
        sys.exit(f"{parser.prog}: {error}")


def _run(task: str, auto_class: Any, row_name: str, options: argparse.Namespace) -> None:
    model = auto_class.from_pretrained(options.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    evaluation = evaluation_for(task, tokenizer, labels, options.max_seq_length)
    trainer = JitTrainer(
        model,
        TrainingArguments(
            str(options.output_dir),
            per_device_eval_batch_size=options.per_device_eval_batch_size,
            bf16_full_eval=options.bf16,
            use_cpu=True,
            report_to=[],
        ),
        data_collator=evaluation.collate,
        jit_mode_eval=options.jit_mode_eval,
        use_ipex=options.use_ipex,
        jit_strict=options.strict,
    )
    if options.do_eval:
        metrics, _ = evaluate_rows(trainer, evaluation, evaluation.read(options.validation_file))
        for name, value in metrics.items():
            print(f"{name:<28} {value:.4f}")
    if options.do_predict:
        rows = evaluation.read(options.test_file)
        _, predictions = evaluate_rows(trainer, evaluation, rows, prefix="test")
        options.output_dir.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({row_name: row[row_name], "answer": one}) for row, one in zip(rows, predictions, strict=True)
        ]
        (options.output_dir / "predictions.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{len(lines)} predictions in {options.output_dir / 'predictions.jsonl'}")
