"""Layouts of rerankers and other cross encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tests.model_matrix.layouts.decoders import QWEN3, qwen_pairs
from tests.model_matrix.layouts.embeddings import modern_pairs
from tests.model_matrix.layouts.folder import IDENTITY, SIGMOID, Model, TextFolder
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.vectors import PairScores, Ranks
from tests.model_matrix.layouts.vocabularies import (
    bracketed_unigrams,
    byte_pairs,
    unigrams,
    word_pieces,
)

_layout = in_area("reranking")

_ONE = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_NLI = ("contradiction", "entailment", "neutral")
_XLMR = {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-05}
OLD_KEYS = {"gradient_checkpointing": False, "position_embedding_type": "absolute", "use_cache": True}


def labels(names: Sequence[str]) -> dict[str, Any]:
    """Labels, as config.json has them."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def _activation(function: str, release: str = "4.1.0.dev0") -> dict[str, Any]:
    """The key of cross encoders from release 4 of the library on."""
    return {"sentence_transformers": {"activation_fn": function, "version": release}}


def _one_label(
    architecture: str,
    kind: str,
    config: Mapping[str, Any] | None = None,
    keys: Mapping[str, Any] | None = None,
    **more: Any,
) -> Model:
    name = f"{architecture}ForSequenceClassification"
    return Model(name, kind, {**_ONE, **(config or {})}, {**OLD_KEYS, **(keys or {})}, **more)


DEBERTA = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_position_embeddings": 512,
}
deberta_pieces = partial(bracketed_unigrams, kind="DebertaV2Tokenizer", split_by_punct=False, vocab_type="spm")
DEBERTA_KEPT = ("position_buckets", "max_relative_positions")
ROBERTA = {"max_position_embeddings": 514, **_XLMR}

LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        TextFolder(_one_label("Bert", "bert", keys=_activation(IDENTITY)), word_pieces),
        Ranks(),
    ),
    _layout(
        "cross-encoder/ms-marco-MiniLM-L-12-v2",
        TextFolder(
            _one_label("Bert", "bert", keys={"sbert_ce_default_activation_function": IDENTITY}),
            partial(word_pieces, files=("vocab.txt",)),
        ),
        Ranks(),
    ),
    _layout(
        "cross-encoder/ms-marco-TinyBERT-L2-v2",
        TextFolder(_one_label("Bert", "bert", keys=_activation(IDENTITY)), word_pieces),
        Ranks(),
    ),
    _layout(
        "cross-encoder/ms-marco-electra-base",
        TextFolder(
            _one_label("Electra", "electra", {"embedding_size": 768}, _activation(IDENTITY)),
            partial(word_pieces, kind="ElectraTokenizer"),
        ),
        Ranks(),
    ),
    _layout(
        "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1",
        TextFolder(
            _one_label("XLMRoberta", "xlm-roberta", ROBERTA, {"sbert_ce_default_activation_function": IDENTITY}),
            unigrams,
        ),
        Ranks(),
    ),
    _layout(
        "cross-encoder/stsb-roberta-base",
        TextFolder(_one_label("Roberta", "roberta", ROBERTA, _activation(SIGMOID)), byte_pairs),
        Ranks(),
    ),
    _layout(
        "cross-encoder/stsb-distilroberta-base",
        TextFolder(_one_label("Roberta", "roberta", ROBERTA), partial(byte_pairs, files=("vocab.json", "merges.txt"))),
        Ranks(),
    ),
    _layout(
        "cross-encoder/qnli-electra-base",
        TextFolder(
            _one_label("Electra", "electra", {"embedding_size": 768}, _activation(SIGMOID)),
            partial(word_pieces, kind="ElectraTokenizer"),
        ),
        Ranks(),
    ),
    _layout(
        "cross-encoder/nli-deberta-v3-base",
        TextFolder(
            Model(
                "DebertaV2ForSequenceClassification",
                "deberta-v2",
                {**DEBERTA, **labels(_NLI)},
                _activation(IDENTITY),
                kept=DEBERTA_KEPT,
            ),
            deberta_pieces,
        ),
        PairScores(),
    ),
    _layout(
        "cross-encoder/nli-roberta-base",
        TextFolder(
            Model("RobertaForSequenceClassification", "roberta", {**ROBERTA, **labels(_NLI)}, _activation(IDENTITY)),
            byte_pairs,
        ),
        PairScores(),
    ),
    _layout(
        "BAAI/bge-reranker-base",
        TextFolder(_one_label("XLMRoberta", "xlm-roberta", ROBERTA), unigrams),
        Ranks(),
    ),
    _layout(
        "BAAI/bge-reranker-v2-m3",
        TextFolder(
            _one_label("XLMRoberta", "xlm-roberta", {**_XLMR, "max_position_embeddings": 8194}),
            partial(unigrams, length=8192),
        ),
        Ranks(),
    ),
    _layout(
        "mixedbread-ai/mxbai-rerank-xsmall-v1",
        TextFolder(_one_label("DebertaV2", "deberta-v2", DEBERTA, {"legacy": True}, kept=DEBERTA_KEPT), deberta_pieces),
        Ranks(),
    ),
    _layout(
        "mixedbread-ai/mxbai-rerank-base-v1",
        TextFolder(_one_label("DebertaV2", "deberta-v2", DEBERTA, kept=DEBERTA_KEPT, half=True), deberta_pieces),
        Ranks(),
    ),
    _layout(
        "Alibaba-NLP/gte-reranker-modernbert-base",
        TextFolder(
            Model(
                "ModernBertForSequenceClassification",
                "modernbert",
                {
                    **_ONE,
                    "max_position_embeddings": 8192,
                    "global_attn_every_n_layers": 3,
                    "local_attention": 128,
                    "classifier_pooling": "mean",
                },
                {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
                kept=("local_attention",),
                without=("rope_parameters", "layer_types"),
                half=True,
            ),
            modern_pairs,
        ),
        Ranks(),
    ),
    _layout(
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls",
        TextFolder(
            Model(
                "Qwen3ForSequenceClassification",
                "qwen3",
                {**QWEN3, **_ONE, "pad_token_id": 151643},
                {"rope_theta": 1000000},
                without=("rope_parameters",),
            ),
            partial(qwen_pairs, around=("", ""), padding_side="left"),
        ),
        Ranks(),
    ),
    _layout(
        "Qwen/Qwen3-Reranker-0.6B",
        TextFolder(
            Model("Qwen3ForCausalLM", "qwen3", QWEN3, {"rope_theta": 1000000}, without=("rope_parameters",)),
            partial(qwen_pairs, around=("", ""), padding_side="left"),
        ),
        Ranks(),
    ),
)
