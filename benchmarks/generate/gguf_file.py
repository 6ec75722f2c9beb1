"""Write a GGUF file of a Llama or a Qwen2, as llama.cpp's own converter does.

The converter comes with llama.cpp's sources and not with its package; the package `gguf` has the names of the tensors
and the numbers of each type. Linears in the precision's type, a table of embeddings in int8 where they are in int4;
vectors in fp32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy
from safetensors import safe_open

from benchmarks.generate.rows import Precision

_TYPES = {
    "fp32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "int4": gguf.GGMLQuantizationType.Q4_0,
}
_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}


def write(folder: Path, precision: Precision, output: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    architecture = _ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(str(output), gguf.MODEL_ARCH_NAMES[architecture])
    _settings(writer, config)
    _tokenizer(writer, folder, config)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
        for name in sorted(tensors.keys()):
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert new is not None, name
            tensor = _ordered(name, tensors.get_tensor(name), config)
            kind = _TYPES["fp32"] if tensor.ndim == 1 else _TYPES[precision]
            if new.startswith("token_embd") and precision == "int4":
                kind = _TYPES["int8"]
            writer.add_tensor(new, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _ordered(name: str, tensor: Any, config: dict[str, Any]) -> Any:
    """Llama's queries and keys with the two halves of each head in turn, which is how llama.cpp rotates them."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    found = next((key for part, key in heads.items() if part in name), None)
    if config["model_type"] != "llama" or found is None:
        return tensor
    rows = tensor.shape[0]
    return numpy.ascontiguousarray(
        tensor.reshape(config[found], 2, rows // config[found] // 2, *tensor.shape[1:])
        .swapaxes(1, 2)
        .reshape(tensor.shape)
    )


def _settings(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])


def _tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Its words are never used, but a file without them is not read."""
    stored = json.loads((folder / "tokenizer.json").read_text())
    words: dict[str, int] = dict(stored["model"]["vocab"])
    special = {one["content"]: one["id"] for one in stored["added_tokens"]}
    by_id = {number: word for word, number in (words | special).items()}
    tokens = [by_id.get(number, f"[unused{number}]") for number in range(config["vocab_size"])]
    merges = [" ".join(one) if isinstance(one, list) else one for one in stored["model"]["merges"]]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if config["model_type"] == "llama" else "qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
