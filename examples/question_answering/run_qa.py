"""Evaluate a model that answers questions with a span of a text, in jit mode or not.

    python examples/question_answering/run_qa.py --model_name_or_path FOLDER \\
        --validation_file examples/question_answering/sample.json --do_eval --jit_mode_eval --use_ipex --bf16

Needs a fine-tuned model (`make finetune` makes one) and a JSON file in SQuAD's form. Prints exact match, F1 and samples
per second; with --do_predict it writes one answer per row to predictions.jsonl. Errors are one line.
"""

from transformers import AutoModelForQuestionAnswering

from exporter.trainer.command import run

if __name__ == "__main__":
    run("question-answering", AutoModelForQuestionAnswering, row_name="id", length=384)
