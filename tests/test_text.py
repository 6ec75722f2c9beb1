"""Text in: the same tokens as transformers gives, long texts refused or cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from runtime import Session, load
from runtime.errors import ExtraMissingError, InputTextError, ManifestDamagedError
from runtime.format.manifest import Axis, TextInfo, TextRules
from runtime.text import TextEncoder
from runtime.text.batched import TaskRunner
from runtime.text.embedding import EmbeddingTask
from runtime.text.tokenizer import InvalidText

TEXTS = ["A short one.", "Ein längerer Satz, mit Ümläuten und 日本語 and emoji 🙂.", "x", ""]


@pytest.fixture(scope="module")
def session(minilm_ipex: Path) -> Session:
    return load(minilm_ipex)


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
    with pytest.raises(InputTextError, match="text 2 holds bytes that are not UTF-8"):
        session.text.encode(["good", b"\xff".decode(errors="surrogateescape")])


def test_padding_on_the_left(minilm: Path) -> None:
    info = TextInfo(max_length=16, pad_id=7, pad_token="[PAD]", pad_type_id=1, padding_side="left")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    encoder = TextEncoder((minilm / "tokenizer.json").read_bytes(), info, names)
    encoded = encoder.encode(["x", "x x"])
    assert encoded["input_ids"][0, 0] == 7 and encoded["token_type_ids"][0, 0] == 1
    assert encoded["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


def test_without_the_package_the_error_says_what_to_install(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ExtraMissingError, match="pip install tokenizers"):
        TextEncoder((minilm / "tokenizer.json").read_bytes(), TextInfo(8, 0, "", 0, "right"), [])


def test_a_damaged_tokenizer() -> None:
    with pytest.raises(ManifestDamagedError, match=r"tokenizer\.json"):
        TextEncoder(b"{}", TextInfo(8, 0, "", 0, "right"), [])


def test_lengths_that_the_model_admits(minilm: Path) -> None:
    """Steps of 8 up to 18, from 4 on: texts are padded to a step, and the longest one has 16 tokens."""
    info = TextInfo(max_length=64, pad_id=0, pad_token="[PAD]", pad_type_id=0, padding_side="right")
    content, axis = (minilm / "tokenizer.json").read_bytes(), Axis("sequence", 4, 18, 8)
    encoder = TextEncoder(content, info, ["input_ids", "attention_mask"], axis)
    encoded = encoder.encode(["x"])
    assert encoded["input_ids"].shape == (1, 8) and encoded["attention_mask"].sum() == 3
    assert encoder.encode(["x " * 14])["input_ids"].shape == (1, 16)
    with pytest.raises(InputTextError, match="text 1 has 17 tokens; expected at most 16"):
        encoder.encode(["x " * 15])
    # Without a mask the model would take padding for text.
    assert TextEncoder(content, info, ["input_ids"], axis).encode(["x"])["input_ids"].shape == (1, 3)


def test_token_types_are_left_out_where_the_tokenizer_gives_none(minilm: Path) -> None:
    rules = TextRules(None, None, None, None, "left", False, False, "")
    info = TextInfo(4, 0, "[PAD]", 0, "right", rules)
    encoder = TextEncoder((minilm / "tokenizer.json").read_bytes(), info, ["input_ids", "token_type_ids"])
    encoded = encoder.encode(["one two three four"], truncate=True)
    assert list(encoded) == ["input_ids"]
    # Cut on the left: the end of the text is kept.
    assert encoded["input_ids"].tolist() == [[101, 2093, 2176, 102]]


def test_without_a_mask_only_texts_of_one_length_share_a_batch(session: Session, minilm: Path) -> None:
    assert session.manifest.text is not None
    names = ["input_ids"]
    encoder = TextEncoder((minilm / "tokenizer.json").read_bytes(), session.manifest.text, names)
    shapes = []

    def run(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        shapes.append(tuple(inputs["input_ids"].shape))
        return session(**inputs)

    runner = TaskRunner(run, session.manifest, encoder)
    found = runner.run(EmbeddingTask(encoder, "sentence_embedding", False), ["a", "b c", "d", "e f"], "raise")
    assert shapes == [(2, 3), (2, 4)]
    torch.testing.assert_close(
        torch.stack(found), torch.stack(session.text.embed(["a", "b c", "d", "e f"])), atol=2e-2, rtol=0
    )


def test_a_word_that_a_vocabulary_lacks_fails_alone() -> None:
    """Without a token for unknown words the package fails on the whole batch."""
    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = TextEncoder(tokenizer.to_str().encode(), TextInfo(8, 0, "", 0, "right"), ["input_ids"])
    with pytest.raises(InputTextError, match="text 2 cannot be tokenised"):
        encoder.encode(["one", "three", "two"])
    with pytest.raises(InputTextError, match="text 1 cannot be tokenised"):
        encoder.encode(["three"], truncate=True)
    first, problem, last = encoder.tokens(["one", "three", "two"])
    assert [first.ids, last.ids] == [[0], [1]] and isinstance(problem, InvalidText)  # type: ignore[union-attr]
