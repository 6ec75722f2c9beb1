"""Evaluate a model that finds entities, in jit mode or not.

    python examples/token_classification/run_ner.py --model_name_or_path FOLDER \\
        --validation_file examples/token_classification/sample.conll --do_eval --jit_mode_eval --use_ipex --bf16

Needs a fine-tuned model (`make finetune` makes one) and a CoNLL file (a word and its label per line). Prints the F1 of
entities and samples per second; with --do_predict it writes one prediction per row to predictions.jsonl. Errors are one
line.
"""

from transformers import AutoModelForTokenClassification

from exporter.trainer.command import run

if __name__ == "__main__":
    run("token-classification", AutoModelForTokenClassification, row_name="words", length=128)
