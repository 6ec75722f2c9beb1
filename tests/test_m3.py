"""BGE-M3's three kinds of vectors in one file: per text, per entry of the vocabulary, per token.

The expected numbers are computed by the formulas that its authors give, from the hidden states of transformers' model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from exporter import Report
from runtime import Session, load
from runtime.commands.main import main
from runtime.errors import CheckpointError, InputTaskError, InputTextError
from tests.conftest import byte_level, tiny_model
from tests.test_settings import ARCHIVE, SIZES, TEXTS, modules, source_of, write

SIZE = 24


@pytest.fixture(scope="session")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m3")
    model = tiny_model("xlm-roberta", "feature-extraction", **SIZES)
    model.save_pretrained(folder)
    byte_level(folder)
    torch.manual_seed(9)
    hidden = int(SIZES["hidden_size"])
    for name, size in (("sparse_linear.pt", 1), ("colbert_linear.pt", SIZE)):
        torch.save(torch.nn.Linear(hidden, size).state_dict(), folder / name)
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    files = {"modules.json": modules("Transformer", "Pooling", "Normalize"), "1_Pooling/config.json": pooling}
    write(folder, files | {ARCHIVE: {}, "sentence_bert_config.json": {"max_seq_length": 256}})
    return folder


@pytest.fixture(scope="session")
def session(m3: Path, exported: Callable[..., Report]) -> Session:
    return load(exported(m3, backend="plain", verify="quick").output)


def authors(folder: Path, text: str) -> tuple[dict[str, float], torch.Tensor]:
    """Weight by token, and the tokens' vectors, of a text alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
    layers = {name: torch.load(folder / f"{name}_linear.pt", weights_only=True) for name in ("sparse", "colbert")}
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state[0]
        weights, vectors = (
            torch.nn.functional.linear(hidden, layers[name]["weight"], layers[name]["bias"])
            for name in ("sparse", "colbert")
        )
    unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    found: dict[str, float] = {}
    for number, weight in zip(inputs["input_ids"][0].tolist(), weights.relu().flatten().tolist(), strict=True):
        token = tokenizer.convert_ids_to_tokens(number)
        if number not in unused and weight > 0:
            found[token] = max(weight, found.get(token, 0))
    return found, torch.nn.functional.normalize(vectors[1:], dim=-1)


def test_the_three_kinds_of_vectors(m3: Path, session: Session) -> None:
    assert session.manifest.task == "sentence-embedding"
    assert [spec.name for spec in session.manifest.outputs] == ["sentence_embedding", "token_weights", "token_vectors"]
    library = SentenceTransformer(str(m3), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(torch.stack(session.text.embed(TEXTS, truncate=True)), library, atol=2e-5, rtol=1e-4)
    sparse = session.text.embed_sparse(TEXTS, truncate=True)
    tokens = session.text.embed_tokens(TEXTS, truncate=True)
    for text, weights, vectors in zip(TEXTS, sparse, tokens, strict=True):
        expected, wanted = authors(m3, text)
        assert expected and weights == pytest.approx(expected, abs=2e-5)
        assert list(weights.values()) == sorted(weights.values(), reverse=True)
        torch.testing.assert_close(vectors, wanted, atol=2e-5, rtol=1e-4)
        top = session.text.embed_sparse([text], top_k=2, truncate=True)[0]
        assert top == pytest.approx({token: weights[token] for token in list(weights)[:2]}, abs=2e-5)
        for side in ("query", "document"):
            (alone,) = session.text.embed_tokens([text], side=side, truncate=True)
            torch.testing.assert_close(alone, wanted, atol=2e-5, rtol=1e-4)


def test_padding_that_is_left_out(m3: Path, exported: Callable[..., Report]) -> None:
    report = exported(m3, backend="onednn", verify="quick")
    for text, vectors in zip(TEXTS, load(report.output).text.embed_tokens(TEXTS, truncate=True), strict=True):
        torch.testing.assert_close(vectors, authors(m3, text)[1], atol=2e-5, rtol=1e-4)


def test_the_command_and_errors(session: Session, m3: Path, exported: Callable[..., Report], capsys: Any) -> None:
    assert main(["predict", str(exported(m3, backend="plain", verify="quick").output), "--text", TEXTS[0]]) == 0
    assert "sentence_embedding" in capsys.readouterr().out
    with pytest.raises(InputTextError, match="side is 'title'"):
        session.text.embed_tokens(TEXTS, side="title")  # type: ignore[arg-type]
    with pytest.raises(InputTextError, match="top_k is 0"):
        session.text.embed_sparse(TEXTS, top_k=0)
    with pytest.raises(InputTaskError, match="classify on an artifact for sentence-embedding"):
        session.text.classify(TEXTS)


class Harmful:
    """Would make a folder if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


LAYERS: dict[str, tuple[Any, str]] = {
    "not a file of tensors": ({"weight": 5}, "cannot read the weights in sparse_linear.pt .*else than tensors by name"),
    "another layer": ({"weight": torch.ones(1, 7), "bias": torch.ones(1)}, "takes vectors of 7 numbers; expected 32"),
    "no bias": ({"weight": torch.ones(1, 32)}, r"sparse_linear.pt .* holds \{'weight': \(1, 32\)\}"),
    "two numbers": ({"weight": torch.ones(2, 32), "bias": torch.ones(2)}, "makes 2 numbers per token; expected one"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_damaged_layers_are_refused(m3: Path, copy_of: Callable[[Path], Path], kind: str) -> None:
    content, words = LAYERS[kind]
    folder = copy_of(m3)
    torch.save(content, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match=words):
        source_of(folder)


def test_code_in_a_layers_file_does_not_run(m3: Path, copy_of: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = copy_of(m3)
    torch.save({"weight": Harmful(tmp_path / "made")}, folder / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"cannot read the weights in colbert_linear\.pt"):
        source_of(folder)
    assert not (tmp_path / "made").exists()


def test_one_of_the_layers_alone_is_not_used(m3: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(m3)
    (folder / "colbert_linear.pt").unlink()
    source = source_of(folder)
    assert any("sparse_linear.pt is not used: it belongs to another file" in note for note in source.notes)
    assert source.embedding is not None and source.embedding.tokens is None
