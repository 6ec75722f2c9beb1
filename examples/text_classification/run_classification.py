"""Evaluate a text classifier, in jit mode or not.

    python examples/text_classification/run_classification.py --model_name_or_path FOLDER \\
        --validation_file examples/text_classification/sample.csv --do_eval --jit_mode_eval --use_ipex --bf16

Needs a fine-tuned model (`make finetune` makes one) and CSV or JSON lines with text and label. Prints accuracy, F1 and
samples per second; with --do_predict it writes one prediction per row to predictions.jsonl. Errors are one line.
"""

from transformers import AutoModelForSequenceClassification

from exporter.trainer.command import run

if __name__ == "__main__":
    run("text-classification", AutoModelForSequenceClassification, row_name="text", length=128)
