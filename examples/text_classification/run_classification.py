"""Evaluate a text classifier, in jit mode or not.

    python examples/text_classification/run_classification.py --model_name_or_path FOLDER \\
        --validation_file examples/text_classification/sample.csv --do_eval --jit_mode_eval --use_ipex --bf16

In: a fine-tuned model (`make finetune` makes one), CSV or JSON lines with text and label.
Out: accuracy and F1, and samples a second; with --do_predict an answer a row in predictions.jsonl.
Refuses what does not fit in one line.
"""

from transformers import AutoModelForSequenceClassification

from exporter.trainer.command import run

if __name__ == "__main__":
    run("text-classification", AutoModelForSequenceClassification, row_name="text", length=128)
