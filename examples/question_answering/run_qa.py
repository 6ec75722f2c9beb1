"""Evaluate a model that answers questions with a span of a text, in jit mode or not.

    python examples/question_answering/run_qa.py --model_name_or_path FOLDER \\
        --validation_file examples/question_answering/sample.json --do_eval --jit_mode_eval --use_ipex --bf16

In: a fine-tuned model (`make finetune` makes one), a JSON file in SQuAD's form.
Out: exact match and F1, and samples a second; with --do_predict an answer a row in predictions.jsonl.
Refuses what does not fit in one line.
"""

from transformers import AutoModelForQuestionAnswering

from exporter.trainer.command import run

if __name__ == "__main__":
    run("question-answering", AutoModelForQuestionAnswering, row_name="id", length=384)
