"""GGUF files as models: what transformers' own reader makes of them is what is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from exporter import ExportRequest
from exporter.loading.loader import Source, load_source
from runtime.errors import CheckpointError, ExtraMissingError, ModelNotFoundError, RequestError
from runtime.text import TextEncoder

IDS = torch.arange(3, 23).reshape(2, 10)
WIDTH, LAYERS, WORDS = 64, 2, ["<unk>", "<s>", "</s>", *(chr(letter) for letter in range(97, 123)), "Ġ", "Ġa"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but a quantised model of Llama's kind, tokenizer included."""
    place = tmp_path_factory.mktemp("llama")
    random = numpy.random.default_rng(5)
    writer = gguf.GGUFWriter(place / "tiny.Q8_0.gguf", "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    sizes: dict[str, tuple[int, ...]] = {"token_embd": (len(WORDS), WIDTH), "output": (len(WORDS), WIDTH)}
    for layer in range(LAYERS):
        sizes |= {f"blk.{layer}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "output")}
        sizes |= {f"blk.{layer}.attn_{part}": (WIDTH // 2, WIDTH) for part in ("k", "v")}
        sizes |= {f"blk.{layer}.ffn_{part}": (2 * WIDTH, WIDTH) for part in ("gate", "up")}
        sizes |= {f"blk.{layer}.ffn_down": (WIDTH, 2 * WIDTH)}
        sizes |= {f"blk.{layer}.{part}_norm": (WIDTH,) for part in ("attn", "ffn")}
    for name, size in (sizes | {"output_norm": (WIDTH,)}).items():
        values = random.standard_normal(size, dtype=numpy.float32)
        if len(size) == 1:
            writer.add_tensor(f"{name}.weight", 1 + values / 10)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quantize(values / 8, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return place


def source_of(folder: Path, **options: Any) -> Source:
    request: dict[str, Any] = {"task": "text-generation-scoring", "gguf": "tiny.Q8_0.gguf"} | options
    return load_source(ExportRequest(model=str(folder), output="unused.pt", **request))


def test_its_answers_are_those_of_transformers(folder: Path) -> None:
    source = source_of(folder)
    expected = AutoModelForCausalLM.from_pretrained(folder, gguf_file="tiny.Q8_0.gguf", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(source.model(IDS).logits, expected(IDS).logits, rtol=1e-4, atol=1e-5)
        assert expected(IDS).logits.std() > 0.1
    assert "weights of tiny.Q8_0.gguf dequantised to fp32 by transformers' reader" in source.notes
    assert (source.info.type, source.longest_sequence) == ("llama", 128)


def test_its_tokenizer_goes_into_the_file(folder: Path) -> None:
    text = source_of(folder).tokenizer
    assert text.content is not None and text.info is not None
    encoder = TextEncoder(text.content, text.info, ("input_ids", "attention_mask"))
    expected = AutoTokenizer.from_pretrained(folder, gguf_file="tiny.Q8_0.gguf")("a cab at a bar")["input_ids"]
    assert encoder.encode(["a cab at a bar"])["input_ids"].tolist() == [expected]


def test_what_is_not_there_or_no_gguf(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no file other.gguf"):
        source_of(folder, gguf="other.gguf")
    with pytest.raises(ModelNotFoundError, match="there is no folder owner/name"):
        source_of(Path("owner/name"))
    (tmp_path / "tiny.Q8_0.gguf").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="is not GGUF"):
        source_of(tmp_path)
    whole = (folder / "tiny.Q8_0.gguf").read_bytes()
    (tmp_path / "tiny.Q8_0.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot load"):
        source_of(tmp_path)
    with pytest.raises(RequestError, match="random_weights and gguf are both set"):
        source_of(folder, random_weights=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ExtraMissingError, match=r"export-model\[gguf\]"):
        source_of(folder)
