"""Layouts of sentence embeddings made by encoders: BERT and its kin, XLM-RoBERTa, MPNet, T5, ModernBERT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tests.model_matrix.layouts.folder import (
    IDENTITY,
    NORMALIZE,
    TANH,
    Model,
    Sentence,
    SentenceFolder,
    TextFolder,
    dense,
    pooling,
    version_3,
)
from tests.model_matrix.layouts.labels import TokenVectors
from tests.model_matrix.layouts.layout import Layout, in_area
from tests.model_matrix.layouts.vectors import Embeddings
from tests.model_matrix.layouts.vocabularies import (
    byte_pairs,
    mpnet_pieces,
    t5_unigrams,
    unigrams,
    word_pieces,
)

_layout = in_area("embedding")

OLD_KEYS = {"gradient_checkpointing": False, "position_embedding_type": "absolute", "use_cache": True}
_BERT = Model("BertModel", "bert", keys=OLD_KEYS)
_LONG_BERT = Model("BertModel", "bert", {"type_vocab_size": 2}, OLD_KEYS | {"classifier_dropout": None})
_XLMR = Model(
    "XLMRobertaModel",
    "xlm-roberta",
    {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    OLD_KEYS | {"output_past": True, "layer_norm_eps": 1e-05},
)
_ROBERTA = Model(
    "RobertaModel",
    "roberta",
    {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    OLD_KEYS | {"layer_norm_eps": 1e-05},
)
_MPNET = Model("MPNetModel", "mpnet", {"max_position_embeddings": 514}, {"relative_attention_num_buckets": 32})
_DISTILBERT = Model(
    "DistilBertModel",
    "distilbert",
    {"max_position_embeddings": 512},
    {"sinusoidal_pos_embds": False, "tie_weights_": True},
)
_T5 = Model(
    "T5EncoderModel",
    "t5",
    {"feed_forward_proj": "relu", "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    {"n_positions": 512, "use_cache": True, "output_past": True},
)
_MODERN = {
    "max_position_embeddings": 8192,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "norm_eps": 1e-05,
    "hidden_activation": "gelu",
    "classifier_pooling": "mean",
}
_MODERN_KEYS = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "position_embedding_type": "absolute"}
_MODERN_BERT = Model(
    "ModernBertModel",
    "modernbert",
    _MODERN,
    _MODERN_KEYS,
    kept=("local_attention",),
    without=("rope_parameters", "layer_types"),
)
_MODERN_FIRST = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
_MODERN_NAMES = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
modern_pairs = partial(
    byte_pairs,
    kind="PreTrainedTokenizerFast",
    length=8192,
    special=_MODERN_NAMES,
    first=_MODERN_FIRST,
    around=("[CLS]", "[SEP]"),
    files=("tokenizer.json",),
    composed=True,
    clean_up_tokenization_spaces=True,
    model_input_names=["input_ids", "attention_mask"],
)

MEAN = pooling("mean_tokens", modes=4)
_CLS = pooling("cls_token", modes=4)
_BGE_QUERY = "Represent this sentence for searching relevant passages: "
_ASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
_CASED = partial(word_pieces, lower=False)


@dataclass(frozen=True)
class _Heads:
    """A folder with two more heads beside the weights: weights of tokens, and vectors of tokens."""

    inner: SentenceFolder

    def __call__(self, folder: Path) -> None:
        """Write it."""
        self.inner(folder)
        chance = torch.Generator().manual_seed(2)
        for name, out in (("sparse_linear.pt", 1), ("colbert_linear.pt", 64)):
            state = {"weight": torch.randn(out, 64, generator=chance) * 0.15, "bias": torch.zeros(out)}
            torch.save(state, folder / name)


SENTENCE_TRANSFORMERS: tuple[Layout, ...] = (
    _layout(
        "sentence-transformers/all-MiniLM-L6-v2",
        SentenceFolder(_BERT, word_pieces, Sentence((MEAN, NORMALIZE), 256)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/all-MiniLM-L12-v2",
        SentenceFolder(_BERT, partial(word_pieces, length=128), Sentence((MEAN, NORMALIZE), 128)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/all-mpnet-base-v2",
        SentenceFolder(_MPNET, mpnet_pieces, Sentence((MEAN, NORMALIZE), 384)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/all-distilroberta-v1",
        SentenceFolder(_ROBERTA, byte_pairs, Sentence((MEAN, NORMALIZE), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        SentenceFolder(
            Model("BertModel", "bert", {"type_vocab_size": 2, "pad_token_id": 0}, OLD_KEYS),
            partial(unigrams, kind="PreTrainedTokenizerFast"),
            Sentence((MEAN,), 128),
        ),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
        SentenceFolder(_XLMR, unigrams, Sentence((MEAN,), 128)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/paraphrase-MiniLM-L6-v2",
        SentenceFolder(_BERT, word_pieces, Sentence((MEAN,), 128)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/multi-qa-MiniLM-L6-cos-v1",
        SentenceFolder(_BERT, word_pieces, Sentence((MEAN, NORMALIZE), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/multi-qa-mpnet-base-dot-v1",
        SentenceFolder(_MPNET, mpnet_pieces, Sentence((_CLS,), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/multi-qa-distilbert-cos-v1",
        SentenceFolder(_DISTILBERT, partial(word_pieces, kind="DistilBertTokenizer"), Sentence((MEAN, NORMALIZE), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/msmarco-distilbert-base-tas-b",
        SentenceFolder(_DISTILBERT, partial(word_pieces, kind="DistilBertTokenizer"), Sentence((_CLS,), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/msmarco-bert-base-dot-v5",
        SentenceFolder(_BERT, word_pieces, Sentence((MEAN,), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/bert-base-nli-mean-tokens",
        SentenceFolder(
            _BERT,
            word_pieces,
            Sentence((MEAN,), 128, settings=None, at="0_Transformer", named="sentence_bert_config.json"),
            {"config.json": {"__version__": "0.2.0"}},
        ),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/LaBSE",
        SentenceFolder(_BERT, _CASED, Sentence((_CLS, dense(64, True, TANH), NORMALIZE), 256)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/distiluse-base-multilingual-cased-v2",
        SentenceFolder(
            _DISTILBERT,
            partial(word_pieces, kind="DistilBertTokenizer", lower=False),
            Sentence((MEAN, dense(48, True, TANH)), 128),
        ),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/gtr-t5-base",
        SentenceFolder(_T5, t5_unigrams, Sentence((MEAN, dense(64, False, IDENTITY), NORMALIZE), 512)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/sentence-t5-base",
        SentenceFolder(_T5, t5_unigrams, Sentence((MEAN, dense(64, False, IDENTITY), NORMALIZE), 256)),
        Embeddings(),
    ),
    _layout(
        "sentence-transformers/stsb-xlm-r-multilingual",
        SentenceFolder(_XLMR, unigrams, Sentence((MEAN,), 128)),
        Embeddings(),
    ),
)

OTHERS: tuple[Layout, ...] = (
    _layout(
        "BAAI/bge-small-en-v1.5",
        SentenceFolder(_BERT, word_pieces, Sentence((_CLS, NORMALIZE), 512, True)),
        Embeddings(),
    ),
    _layout(
        "BAAI/bge-base-en-v1.5",
        SentenceFolder(_BERT, word_pieces, Sentence((_CLS, NORMALIZE), 512, True, version_3({"query": _BGE_QUERY}))),
        Embeddings((None, "query")),
    ),
    _layout(
        "BAAI/bge-large-zh-v1.5",
        SentenceFolder(
            Model(
                "BertModel", "bert", {"hidden_dropout_prob": 0.1}, OLD_KEYS | {"pooler_type": "first_token_transform"}
            ),
            word_pieces,
            Sentence((_CLS, NORMALIZE), 512, True),
        ),
        Embeddings(),
    ),
    _layout(
        "BAAI/bge-m3",
        _Heads(
            SentenceFolder(
                Model(
                    "XLMRobertaModel",
                    "xlm-roberta",
                    {**_XLMR.config, "max_position_embeddings": 8194},
                    _XLMR.keys,
                ),
                partial(unigrams, length=8192),
                Sentence((_CLS, NORMALIZE), 8192),
            )
        ),
        Embeddings(),
    ),
    _layout(
        "intfloat/e5-small-v2",
        SentenceFolder(_BERT, word_pieces, Sentence((pooling("mean_tokens", modes=4), NORMALIZE), 512, settings=None)),
        Embeddings(),
    ),
    _layout(
        "intfloat/e5-large-v2",
        SentenceFolder(_LONG_BERT, word_pieces, Sentence((MEAN, NORMALIZE), 512, settings=None)),
        Embeddings(),
    ),
    _layout(
        "intfloat/multilingual-e5-small",
        SentenceFolder(
            Model("BertModel", "bert", {}, OLD_KEYS | {"tokenizer_class": "XLMRobertaTokenizer"}),
            unigrams,
            Sentence((MEAN, NORMALIZE), 512, settings=None),
        ),
        Embeddings(),
    ),
    _layout(
        "intfloat/multilingual-e5-base",
        SentenceFolder(_XLMR, unigrams, Sentence((MEAN, NORMALIZE), 512, settings=None)),
        Embeddings(),
    ),
    _layout(
        "intfloat/multilingual-e5-large-instruct",
        SentenceFolder(
            Model("XLMRobertaModel", "xlm-roberta", _XLMR.config, _XLMR.keys, half=True),
            unigrams,
            Sentence((MEAN, NORMALIZE), 512, settings=version_3()),
        ),
        Embeddings(),
    ),
    _layout(
        "thenlper/gte-base",
        SentenceFolder(
            Model("BertModel", "bert", {}, OLD_KEYS, half=True),
            partial(word_pieces, length=128),
            Sentence((MEAN, NORMALIZE), 512, settings=None),
        ),
        Embeddings(),
    ),
    _layout(
        "Alibaba-NLP/gte-modernbert-base",
        SentenceFolder(_MODERN_BERT, modern_pairs, Sentence((pooling("cls_token", include_prompt=True),), 8192)),
        Embeddings(),
    ),
    _layout(
        "nomic-ai/modernbert-embed-base",
        SentenceFolder(
            _MODERN_BERT,
            modern_pairs,
            Sentence(
                (pooling("mean_tokens", include_prompt=True), NORMALIZE),
                8192,
                settings=version_3({"query": "search_query: ", "document": "search_document: "}),
            ),
        ),
        Embeddings((None, "query", "document"), (32,)),
    ),
    _layout(
        "mixedbread-ai/mxbai-embed-large-v1",
        SentenceFolder(
            Model("BertModel", "bert", {}, OLD_KEYS, half=True),
            word_pieces,
            Sentence(
                (pooling("cls_token", include_prompt=True),),
                512,
                settings=version_3({"query": _BGE_QUERY, "passage": ""}, similarity=None),
            ),
        ),
        Embeddings((None, "query", "passage"), (32,)),
    ),
    _layout(
        "Snowflake/snowflake-arctic-embed-m",
        SentenceFolder(
            _BERT,
            word_pieces,
            Sentence(
                (pooling("cls_token", include_prompt=True), NORMALIZE), 512, settings=version_3({"query": _BGE_QUERY})
            ),
        ),
        Embeddings((None, "query")),
    ),
    _layout(
        "Snowflake/snowflake-arctic-embed-l-v2.0",
        SentenceFolder(
            Model("XLMRobertaModel", "xlm-roberta", {**_XLMR.config, "max_position_embeddings": 8194}, _XLMR.keys),
            partial(unigrams, length=8192),
            Sentence(
                (pooling("cls_token", include_prompt=True), NORMALIZE), 8192, settings=version_3({"query": "query: "})
            ),
        ),
        Embeddings((None, "query"), (16,)),
    ),
    _layout(
        "ibm-granite/granite-embedding-30m-english",
        SentenceFolder(_ROBERTA, byte_pairs, Sentence((pooling("cls_token", include_prompt=True), NORMALIZE), 512)),
        Embeddings(),
    ),
    _layout(
        "ibm-granite/granite-embedding-278m-multilingual",
        SentenceFolder(_XLMR, unigrams, Sentence((pooling("cls_token", include_prompt=True), NORMALIZE), 512)),
        Embeddings(),
    ),
    _layout(
        "hkunlp/instructor-base",
        SentenceFolder(
            _T5,
            t5_unigrams,
            Sentence((pooling("mean_tokens", include_prompt=False), dense(64, False, IDENTITY), NORMALIZE), 512),
        ),
        Embeddings(),
    ),
    _layout(
        "facebook/contriever",
        TextFolder(_BERT, word_pieces),
        TokenVectors(),
    ),
    _layout(
        "princeton-nlp/sup-simcse-roberta-base",
        TextFolder(_ROBERTA, partial(byte_pairs, files=("vocab.json", "merges.txt"))),
        TokenVectors(),
    ),
)

LAYOUTS = (*SENTENCE_TRANSFORMERS, *OTHERS)
