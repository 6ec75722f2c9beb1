"""Classifiers made of decoders: each text has in a batch the scores that the model gives it alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from exporter import Report
from runtime import load
from tests.conftest import byte_level

TEXTS = ["Permission is hereby granted", "x", "The SOFTWARE is provided AS IS, without warranty of any kind", "to deal"]
SIZES: dict[str, dict[str, Any]] = {
    # Positions from a table: padding on the left shifts a text.
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    # Rotated positions: either side will do.
    "qwen2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
}


def made(folder: Path, kind: str, labels: int, side: str) -> Path:
    """A model whose configuration names no padding token, beside a tokenizer that has one."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=400, num_labels=labels, initializer_range=0.3, pad_token_id=None, **SIZES[kind]
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    byte_level(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": side}))
    return folder


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", SIZES)
def test_a_text_in_a_batch_has_the_scores_that_it_has_alone(
    tmp_path: Path, exported: Callable[..., Report], kind: str, side: str, labels: int
) -> None:
    folder = made(tmp_path, kind, labels, side)
    report = exported(folder, backend="plain")
    assert any("pad_token_id 1 is the tokenizer's" in note for note in report.choices)
    text = load(report.output).text
    batch, alone = text.classify(TEXTS), [text.classify([one])[0] for one in TEXTS]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for one, together, apart in zip(TEXTS, batch, alone, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(one, return_tensors="pt")).logits[0]
        expected = (logits.sigmoid() if labels == 1 else logits.softmax(-1)).tolist()
        for found in (together, apart):
            assert [found.scores[f"LABEL_{i}"] for i in range(labels)] == pytest.approx(expected, abs=1e-4)


def test_the_answers_are_those_of_the_pipeline(tmp_path: Path, exported: Callable[..., Report]) -> None:
    folder = made(tmp_path, "qwen2", 3, "left")
    model = AutoModelForSequenceClassification.from_pretrained(folder, pad_token_id=1)
    pipeline = transformers.pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu", top_k=None
    )
    text = load(exported(folder, backend="plain").output).text
    for mine, theirs in zip(text.classify(TEXTS), pipeline(TEXTS, batch_size=4), strict=True):
        for one in theirs:
            assert mine.scores[one["label"]] == pytest.approx(one["score"], abs=1e-4)
