"""Text in: the same tokens as transformers gives, long texts refused or cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from runtime import Session, load
from runtime.errors import ExtraMissingError, InputTextError, ManifestDamagedError
from runtime.manifest import TextInfo
from runtime.text import TextEncoder

TEXTS = ["A short one.", "Ein längerer Satz, mit Ümläuten und 日本語 and emoji 🙂.", "x", ""]


@pytest.fixture(scope="module")
def session(minilm_bf16: Path) -> Session:
    return load(minilm_bf16)


def test_the_tokens_are_those_of_transformers(session: Session, minilm: Path) -> None:
    reference = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    encoded = session.text.encode(TEXTS)
    assert list(encoded) == ["input_ids", "attention_mask", "token_type_ids"]
    for name, tensor in encoded.items():
        assert torch.equal(tensor, reference[name]), name


def test_one_text_is_not_padded(session: Session) -> None:
    assert session.text.encode(["x"])["input_ids"].shape == (1, 3)


def test_a_long_text_is_refused_with_its_place_and_length(session: Session) -> None:
    with pytest.raises(InputTextError, match="text 2 has 302 tokens; expected at most 256"):
        session.text.encode(["short", "word " * 300])


def test_a_long_text_is_cut_when_asked(session: Session, minilm: Path) -> None:
    reference = AutoTokenizer.from_pretrained(minilm)(["word " * 300], truncation=True, max_length=256)
    assert session.text.encode(["word " * 300], truncate=True)["input_ids"].tolist() == reference["input_ids"]


@pytest.mark.parametrize("texts", [[], "one string", [1], [None], 5, iter(["a"]), None])
def test_what_is_no_list_of_texts(session: Session, texts: Any) -> None:
    with pytest.raises(InputTextError, match="a list of at least one string"):
        session.text.encode(texts)


def test_bytes_that_are_no_text(session: Session) -> None:
    with pytest.raises(InputTextError, match="text 2 holds bytes that are no UTF-8"):
        session.text.encode(["good", b"\xff".decode(errors="surrogateescape")])


def test_padding_on_the_left(minilm: Path) -> None:
    info = TextInfo(max_length=16, pad_id=7, pad_token="[PAD]", pad_type_id=1, padding_side="left")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    encoder = TextEncoder((minilm / "tokenizer.json").read_bytes(), info, names)
    encoded = encoder.encode(["x", "x x"])
    assert encoded["input_ids"][0, 0] == 7 and encoded["token_type_ids"][0, 0] == 1
    assert encoded["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ExtraMissingError, match="pip install tokenizers"):
        TextEncoder(b"{}", TextInfo(8, 0, "", 0, "right"), [])


def test_a_damaged_tokenizer() -> None:
    with pytest.raises(ManifestDamagedError, match=r"tokenizer\.json"):
        TextEncoder(b"{}", TextInfo(8, 0, "", 0, "right"), [])
