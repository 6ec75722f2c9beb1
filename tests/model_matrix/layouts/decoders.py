"""Layouts of sentence embeddings made by decoders, and of newer encoders with rotated positions."""

from __future__ import annotations

from functools import partial

from tests.model_matrix.layouts.embeddings import modern_pairs
from tests.model_matrix.layouts.folder import (
    IDENTITY,
    NORMALIZE,
    Model,
    Sentence,
    SentenceFolder,
    dense,
    pooling,
    version_3,
)
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.vectors import Embeddings
from tests.model_matrix.layouts.vocabularies import byte_pairs, spaced_pairs, word_pieces

_layout = in_area("embedding")

_ASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
_QWEN_FIRST = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
qwen_pairs = partial(
    byte_pairs,
    kind="Qwen2Tokenizer",
    length=131072,
    special={"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    first=_QWEN_FIRST,
    around=("", "<|endoftext|>"),
    composed=True,
    add_prefix_space=False,
    unk_token=None,
)
QWEN3 = {
    "max_position_embeddings": 32768,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "rms_norm_eps": 1e-06,
    "head_dim": 128,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "hidden_size": 1024,
}
_LAST = pooling("lasttoken", include_prompt=True)
_QWEN_PROMPTS = version_3({"query": _ASK.rstrip(" "), "document": ""})
_GEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "BitextMining": "task: search result | query: ",
    "Clustering": "task: clustering | query: ",
    "STS": "task: sentence similarity | query: ",
}
_GEMMA = Model(
    "Gemma3TextModel",
    "gemma3_text",
    {
        "max_position_embeddings": 2048,
        "sliding_window": 512,
        "use_bidirectional_attention": True,
        "query_pre_attn_scalar": 256,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "hidden_size": 768,
        "head_dim": 256,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "num_hidden_layers": 6,
    },
    {"rope_local_base_freq": 10000.0, "rope_scaling": None, "rope_theta": 1000000.0, "_sliding_window_pattern": 6},
    kept=("sliding_window",),
    without=("rope_parameters",),
)
_MISTRAL_FIRST = ("<unk>", "<s>", "</s>")

LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "Qwen/Qwen3-Embedding-0.6B",
        SentenceFolder(
            Model(
                "Qwen3ForCausalLM",
                "qwen3",
                QWEN3,
                {"rope_theta": 1000000},
                without=("rope_parameters",),
                cls="Qwen3Model",
            ),
            qwen_pairs,
            Sentence((_LAST, NORMALIZE), None, settings=_QWEN_PROMPTS),
        ),
        Embeddings((None, "query", "document"), (32,)),
    ),
    _layout(
        "google/embeddinggemma-300m",
        SentenceFolder(
            _GEMMA,
            spaced_pairs,
            Sentence(
                (
                    pooling("mean_tokens", include_prompt=True),
                    dense(96, False, IDENTITY),
                    dense(64, False, IDENTITY, into=96),
                    NORMALIZE,
                ),
                2048,
                settings=version_3(_GEMMA_PROMPTS),
            ),
        ),
        Embeddings((None, "query", "document", "Clustering"), (32,)),
    ),
    _layout(
        "intfloat/e5-mistral-7b-instruct",
        SentenceFolder(
            Model(
                "MistralModel",
                "mistral",
                {"max_position_embeddings": 32768, "sliding_window": 4096, "num_key_value_heads": 8},
                {"rope_theta": 10000.0, "use_cache": False},
                kept=("sliding_window",),
                without=("rope_parameters",),
                half=True,
            ),
            partial(
                spaced_pairs,
                kind="LlamaTokenizer",
                length=4096,
                first=_MISTRAL_FIRST,
                around=("<s>", "</s>"),
                side="left",
                legacy=True,
            ),
            Sentence(
                (pooling("lasttoken"), NORMALIZE),
                4096,
                settings=version_3(
                    {"web_search_query": _ASK, "sts_query": "Instruct: Retrieve semantically similar text.\nQuery: "}
                ),
            ),
        ),
        Embeddings((None, "web_search_query", "sts_query")),
    ),
    _layout(
        "Salesforce/SFR-Embedding-Mistral",
        SentenceFolder(
            Model(
                "MistralModel",
                "mistral",
                {"max_position_embeddings": 32768, "num_key_value_heads": 8, "sliding_window": 4096},
                {"rope_theta": 10000.0},
                kept=("sliding_window",),
                without=("rope_parameters",),
            ),
            partial(
                spaced_pairs,
                kind="LlamaTokenizer",
                first=_MISTRAL_FIRST,
                around=("<s>", "</s>"),
                side="left",
                legacy=True,
            ),
            Sentence((pooling("lasttoken"), NORMALIZE), 4096, settings=version_3()),
        ),
        Embeddings(),
    ),
    _layout(
        "ibm-granite/granite-embedding-english-r2",
        SentenceFolder(
            Model(
                "ModernBertModel",
                "modernbert",
                {
                    "max_position_embeddings": 8192,
                    "global_attn_every_n_layers": 3,
                    "local_attention": 128,
                    "hidden_activation": "silu",
                },
                {"global_rope_theta": 80000.0, "local_rope_theta": 10000.0},
                kept=("local_attention",),
                without=("rope_parameters", "layer_types"),
            ),
            modern_pairs,
            Sentence((pooling("cls_token", include_prompt=True), NORMALIZE), 8192, settings=version_3()),
        ),
        Embeddings(),
    ),
    _layout(
        "nomic-ai/nomic-embed-text-v1.5",
        SentenceFolder(
            Model(
                "NomicBertModel",
                "nomic_bert",
                keys={
                    "auto_map": {
                        "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
                        "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
                    },
                    "activation_function": "swiglu",
                    "causal": False,
                    "fused_bias_fc": True,
                    "max_trained_positions": 2048,
                    "mlp_fc1_bias": False,
                    "mlp_fc2_bias": False,
                    "n_positions": 8192,
                    "prenorm": False,
                    "qkv_proj_bias": False,
                    "rotary_emb_base": 1000,
                    "rotary_emb_fraction": 1.0,
                    "rotary_emb_interleaved": False,
                    "rotary_emb_scale_base": None,
                    "rotary_scaling_factor": None,
                    "use_flash_attn": True,
                    "use_rms_norm": False,
                },
                copies={
                    "n_embd": "hidden_size",
                    "n_head": "num_attention_heads",
                    "n_inner": "intermediate_size",
                    "n_layer": "num_hidden_layers",
                    "layer_norm_epsilon": "layer_norm_eps",
                },
            ),
            partial(word_pieces, length=8192),
            Sentence((pooling("mean_tokens", modes=4),), 8192),
        ),
        Embeddings(),
    ),
)
