"""Every setting of a sentence-transformers folder, as data: what this exporter does with each key of each file.

To support one more key, add it here and read it where its value is used. `exporter.loading.settings` refuses a key that
is not listed.

config.json and tokenizer_config.json have no table: models keep all kinds of keys there, and transformers itself reads
them. The export is compared with what transformers makes of them: the model with its own forward pass, the tokenizer
with its own tokens (`exporter.loading.tokenizer_probe`). The keys of config.json that something else than the model
reads are in `exporter.loading.score_activation` and `exporter.loading.unsupported`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key.

    If it is `honoured`, its value is used. Otherwise, if `allowed` is None, any value is harmless, and `reason` says
    why; else only the values in `allowed` are accepted, and `reason` says what another one would change.
    """

    reason: str
    honoured: bool = False
    allowed: tuple[Any, ...] | None = None


Table = Mapping[str, Key]


def _taken(reason: str) -> Key:
    return Key(reason, honoured=True)


def _harmless(reason: str) -> Key:
    return Key(reason)


def _only(*allowed: Any, reason: str) -> Key:
    return Key(reason, allowed=allowed)


# config_sentence_transformers.json
MODEL: Table = {
    "__version__": _harmless("the releases that saved the folder"),
    "requirements": _harmless("what the library wants installed"),
    "model_type": _taken("which kind of model the folder is"),
    "prompts": _taken("texts to put before others, by name"),
    "default_prompt_name": _taken("the prompt that each text gets"),
    "truncate_dim": _taken("how many numbers of a vector are kept"),
    "similarity_fn_name": _taken("how vectors are compared"),
    "activation_fn": _taken("the activation of a cross encoder's scores"),
    "keep_in_fp32_modules": _harmless("the reference is in fp32, and other precisions are compared with it"),
    "max_active_dims": _only(None, reason="it zeroes all but the largest numbers of a sparse vector"),
}

# The same of a folder that PyLate saved
PYLATE: Table = {
    **MODEL,
    **dict.fromkeys(
        (
            *("query_prefix", "document_prefix", "query_length", "document_length", "query_expansion"),
            *("do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens", "skiplist_words"),
        ),
        _taken("how queries and documents are prepared"),
    ),
}

# modules.json, each of its entries
MODULE: Table = {
    "idx": _harmless("the library goes by the order of the list"),
    "name": _taken("names the module"),
    "path": _taken("where the module's files are"),
    "type": _taken("the module's class"),
    "kwargs": _harmless("arguments that a caller may give to encode, and does not give here"),
}

# sentence_bert_config.json and its older names
TRANSFORMER: Table = {
    "max_seq_length": _taken("texts are cut there"),
    "do_lower_case": _taken("texts are written in lower case first"),
    "transformer_task": _taken("which head the model has"),
    "modality_config": _taken("how texts are given to the model"),
    "module_output_name": _taken("which output the next modules read"),
    "processing_kwargs": _taken("how texts are tokenised"),
    "unpad_inputs": _harmless("skips padding while computing; the outputs are the same"),
    "query_length": _taken("queries are cut there"),
    "document_length": _taken("documents are cut there"),
    "query_expansion": _taken("tokens that are added to queries"),
    "tokenizer_name_or_path": _only(None, reason="the tokenizer is that of another model"),
    "tokenizer_args": _taken("arguments of the tokenizer"),
    "processor_kwargs": _taken("arguments of the tokenizer"),
    "model_args": _taken("arguments of the model"),
    "model_kwargs": _taken("arguments of the model"),
    "config_args": _taken("arguments of the configuration"),
    "config_kwargs": _taken("arguments of the configuration"),
    "backend": _harmless("what the library computes with"),
}
# `tokenizer_args` or `processor_kwargs` in it
TOKENIZER_ARGUMENTS: Table = {
    "model_max_length": _taken("texts are cut there"),
    "trust_remote_code": _harmless("the library does not take it from a file"),
    "use_fast": _harmless("the tokenizer's form in tokenizer.json is the fast one"),
}
# `processing_kwargs` in it, and `chat_template` in that
PROCESSING: Table = {"chat_template": _taken("arguments of the chat template")} | dict.fromkeys(
    ("text", "common", "audio", "image", "video"), _only(None, {}, reason="it changes how texts are tokenised")
)
# `query_expansion` in it
QUERY_EXPANSION: Table = {
    "strategy": _taken("whether longer queries are cut"),
    "length": _taken("up to how many tokens queries are filled up"),
    "attend": _taken("whether the model looks at what was added"),
    "token": _taken("the token that is added"),
}
# `model_args` or `model_kwargs`, `config_args` or `config_kwargs` in it
MODEL_ARGUMENTS: Table = {
    "trust_remote_code": _harmless("the library does not take it from a file"),
    "torch_dtype": _harmless("the weights are exported from fp32"),
    "dtype": _harmless("the weights are exported from fp32"),
    "attn_implementation": _harmless("how attention is computed, not what"),
    "add_pooling_layer": _harmless("the modules pool the token vectors themselves"),
    "use_cache": _harmless("one forward pass has no use for it"),
    "device_map": _harmless("where the library puts the weights"),
    "low_cpu_mem_usage": _harmless("how the library loads the weights"),
    "use_safetensors": _harmless("how the library loads the weights"),
}

# Legacy keys of a Pooling → current names of the modes, in the order in which the library concatenates their vectors.
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# <path>/config.json of the modules that follow the transformer
POOLING: Table = {
    "word_embedding_dimension": _harmless("only states the size of the vectors"),
    "embedding_dimension": _harmless("only states the size of the vectors"),
    "pooling_mode": _taken("how token vectors become one"),
    "include_prompt": _taken("whether the prompt's tokens are pooled"),
} | dict.fromkeys(LEGACY_POOLING, _taken("how token vectors become one"))
_SENTENCE = (None, "sentence_embedding")
_OTHER_VECTORS = "it works on other vectors than the sentence's"
DENSE: Table = {
    "in_features": _taken("the linear layer's size"),
    "out_features": _taken("the linear layer's size"),
    "bias": _taken("whether the linear layer has a bias"),
    "activation_function": _taken("what follows the linear layer"),
    "module_input_name": _only(*_SENTENCE, reason=_OTHER_VECTORS),
    "module_output_name": _only(*_SENTENCE, reason=_OTHER_VECTORS),
    "use_residual": _only(None, False, reason="it adds the layer's input to its output"),
}
LAYER_NORM: Table = {"dimension": _taken("the layer's size")}
NORMALIZE: Table = {
    "module_input_name": _only(*_SENTENCE, reason=_OTHER_VECTORS),
    "module_output_name": _only(*_SENTENCE, reason=_OTHER_VECTORS),
}
# The same modules where they follow the model's token vectors directly
_TOKENS = (None, "token_embeddings")
_NOT_TOKENS = "it works on other vectors than the tokens'"
TOKEN_DENSE: Table = {
    **DENSE,
    "module_input_name": _only(*_TOKENS, reason=_NOT_TOKENS),
    "module_output_name": _only(*_TOKENS, reason=_NOT_TOKENS),
}
TOKEN_NORMALIZE: Table = {
    "module_input_name": _taken("which vectors it normalises"),
    "module_output_name": _only(*_TOKENS, reason=_NOT_TOKENS),
}
MULTI_VECTOR_MASK: Table = {
    "skiplist_words": _taken("tokens whose vectors are left out"),
    "skiplist_tasks": _taken("of which texts they are left out"),
    "keep_only_token_ids": _only(None, [], reason="it keeps the vectors of certain tokens only"),
}
SPLADE_POOLING: Table = {
    "pooling_strategy": _taken("how the tokens' weights become one"),
    "activation_function": _taken("how scores become weights"),
    "word_embedding_dimension": _harmless("only states the size of the vectors"),
    "embedding_dimension": _harmless("only states the size of the vectors"),
    "chunk_size": _harmless("how many tokens the library takes at once; the outputs are the same"),
}
LOGIT_SCORE: Table = {
    "true_token_id": _taken("the token whose score counts"),
    "false_token_id": _taken("the token whose score is subtracted"),
    "module_input_name": _only(None, "causal_logits", reason="it reads other scores than the model's"),
}
DROPOUT: Table = {"dropout": _harmless("off outside of training")}

# The library's packages with modules, over all releases; a class is `<package>.<Module>` or `<package>.<file>.<Module>`
PACKAGES = tuple(
    f"sentence_transformers.{name}"
    for name in (
        "models",
        "base.modules",
        "sentence_transformer.modules",
        "sparse_encoder.models",
        "sparse_encoder.modules",
        "cross_encoder.modules",
        "multi_vector_encoder.modules",
    )
)
# The library's modules → the names of their files without `.py`, besides the module's own name (older releases).
MODULES = {
    "Transformer": "transformer",
    "Pooling": "pooling",
    "Dense": "dense",
    "LayerNorm": "layer_norm",
    "Normalize": "normalize",
    "Dropout": "dropout",
    "BoW": "bow",
    "CLIPModel": "clip_model",
    "CNN": "cnn",
    "LSTM": "lstm",
    "StaticEmbedding": "static_embedding",
    "WeightedLayerPooling": "weighted_layer_pooling",
    "WordEmbeddings": "word_embeddings",
    "WordWeights": "word_weights",
    "Asym": "router",
    "Router": "router",
    "MLMTransformer": "mlm_transformer",
    "SpladePooling": "splade_pooling",
    "SparseAutoEncoder": "sparse_auto_encoder",
    "SparseStaticEmbedding": "sparse_static_embedding",
    "LogitScore": "logit_score",
    "MultiVectorMask": "multi_vector_mask",
    "TokenPooling": "token_pooling",
}
