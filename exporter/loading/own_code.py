"""Folders that bring Python code for a class that transformers has too.

transformers takes its own class then, unless it is told to trust the folder, and so does this exporter: but only if it
knows that every key of the configuration means the same to that class, or changes nothing. Anything else needs the
folder's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import transformers


class _As(NamedTuple):
    """A key whose value has to be that of an attribute of transformers' configuration."""

    attribute: str


# What the class of transformers computes, by keys of the code that it replaces. Keys of training and of speed change no
# answer. The lists are of that code's configuration, nomic-ai/nomic-bert-2048.
_NOMIC: Mapping[str, Any] = {
    "n_embd": _As("hidden_size"),
    "n_head": _As("num_attention_heads"),
    "n_layer": _As("num_hidden_layers"),
    "n_inner": _As("intermediate_size"),
    "layer_norm_epsilon": _As("layer_norm_eps"),
    "rotary_emb_base": _As("rope_theta"),
    "activation_function": "swiglu",
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "use_rms_norm": False,
}
# The number of positions is a limit of the tokenizer's and of sentence-transformers; rotary positions have none.
_NOMIC_NO_ANSWER = (
    *("attn_pdrop", "embd_pdrop", "resid_pdrop", "dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln"),
    *("max_trained_positions", "n_positions", "pad_vocab_size_multiple", "reorder_and_upcast_attn", "use_cache"),
    *("use_flash_attn", "use_xentropy", "summary_activation", "summary_first_dropout", "summary_proj_to_labels"),
    *("summary_type", "summary_use_proj", "torch_dtype", "tie_word_embeddings", "expand_inputs"),
)
_KNOWN: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]] = {"nomic_bert": (_NOMIC, _NOMIC_NO_ANSWER)}


def needs_own_code(config: Any, architectures: Sequence[str]) -> str | None:
    """Why the folder's code is needed, for people, empty if that is plain; None if transformers' class does the same.

    Args:
        config: the configuration, as transformers' class or the folder's read it.
        architectures: the classes that are the folder's own too.
    """
    known = _KNOWN.get(config.model_type)
    theirs = [name for name in architectures if getattr(transformers, name, None) is None]
    if known is None or theirs or not type(config).__module__.startswith("transformers."):
        return ""
    values, harmless = known
    given = config.to_dict()
    added = set(given) - set(type(config)().to_dict()) - set(harmless) - {"auto_map", "architectures"}
    for key in sorted(added):
        if key not in values:
            return f", and its key {key} says something that transformers' class does not know"
        expected = _expected(config, values[key])
        if given[key] != expected:
            return f", and its key {key} is {given[key]!r}, where transformers' class has {expected!r}"
    return None


def _expected(config: Any, value: Any) -> Any:
    if not isinstance(value, _As):
        return value
    if value.attribute == "rope_theta":
        return (config.rope_parameters or {}).get("rope_theta")
    return getattr(config, value.attribute)
