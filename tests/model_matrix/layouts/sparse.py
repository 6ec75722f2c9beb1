"""Layouts of sparse vectors (SPLADE) and of late interaction (ColBERT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder

from runtime import Session
from tests.model_matrix.layouts.embeddings import modern_pairs
from tests.model_matrix.layouts.folder import Model, Sentence, SentenceFolder, Stage, TextFolder, version_3, write
from tests.model_matrix.layouts.layout import Layout, Mismatch, in_area
from tests.model_matrix.layouts.texts import QUERY, TEXTS
from tests.model_matrix.layouts.vectors import FLOAT, SparseVectors, close_vectors
from tests.model_matrix.layouts.vocabularies import word_pieces

_layout = in_area("sparse and late interaction")
_SPARSE = "sentence_transformers.sparse_encoder.models."
_OLD_KEYS = {"gradient_checkpointing": False, "position_embedding_type": "absolute", "use_cache": True}
_BERT = Model("BertForMaskedLM", "bert", keys=_OLD_KEYS)
_DISTILBERT = Model("DistilBertForMaskedLM", "distilbert", {"max_position_embeddings": 512})
_SETTINGS = version_3({"query": "", "document": ""}, similarity="dot", model_type="SparseEncoder")


def _splade(length: int = 256, activation: str = "relu") -> Sentence:
    config = {"pooling_strategy": "max", "activation_function": activation, "word_embedding_dimension": None}
    stage = Stage("SpladePooling", config)
    return Sentence((stage,), length, settings=_SETTINGS, prefix=_SPARSE, first="MLMTransformer")


@dataclass(frozen=True)
class _Router:
    """A folder with another model for queries than for documents: a table of weights per token."""

    inner: SentenceFolder

    def __call__(self, folder: Path) -> None:
        """Write it."""
        part = folder / "document_0_MLMTransformer"
        self.inner(part)
        (part / "1_SpladePooling").rename(folder / "document_1_SpladePooling")
        (part / "modules.json").unlink()
        (part / "config_sentence_transformers.json").rename(folder / "config_sentence_transformers.json")
        query = folder / "query_0_SparseStaticEmbedding"
        write(query / "config.json", {"frozen": False})
        save_file({"weight": torch.ones(100)}, str(query / "model.safetensors"))
        types = {
            "query_0_SparseStaticEmbedding": f"{_SPARSE}SparseStaticEmbedding.SparseStaticEmbedding",
            "document_0_MLMTransformer": f"{_SPARSE}MLMTransformer.MLMTransformer",
            "document_1_SpladePooling": f"{_SPARSE}SpladePooling.SpladePooling",
        }
        structure = {"query": ["query_0_SparseStaticEmbedding"], "document": list(types)[1:]}
        parameters = {"default_route": "document", "allow_empty_key": True}
        write(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
        kind = "sentence_transformers.models.Router"
        write(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])


@dataclass(frozen=True)
class _Colbert:
    """The first release's folder: the projection is beside the model's weights, the settings in artifact.metadata."""

    inner: TextFolder
    metadata: tuple[tuple[str, Any], ...]
    size: int = 32

    def __call__(self, folder: Path) -> None:
        """Write it."""
        self.inner(folder)
        path = folder / "model.safetensors"
        tensors = {f"bert.{name}": value for name, value in load_file(path).items()}
        width = tensors["bert.embeddings.word_embeddings.weight"].shape[1]
        projection = torch.randn(self.size, width, generator=torch.Generator().manual_seed(1)) * width**-0.5
        save_file(tensors | {"linear.weight": projection}, str(path), metadata={"format": "pt"})
        write(folder / "artifact.metadata", dict(self.metadata))


@dataclass(frozen=True)
class LateInteraction:
    """`MultiVectorEncoder.encode_query` and `encode_document`: a vector per token."""

    queries: Sequence[str] = (QUERY, "Hi", TEXTS[2])

    def expected(self, folder: Path) -> Any:
        """Vectors of queries and of documents."""
        model = MultiVectorEncoder(str(folder), device="cpu", model_kwargs=FLOAT)
        found = [model.encode_query(list(self.queries)), model.encode_document(list(TEXTS))]
        return [[torch.as_tensor(one).float() for one in rows] for rows in found]

    def compare(self, session: Session, expected: Any) -> float:
        """1 less the smallest cosine."""
        errors = [0.0]
        texts: tuple[Sequence[str], ...] = (self.queries, TEXTS)
        for side, some, rows in zip(("query", "document"), texts, expected, strict=True):
            found = session.text.embed_tokens(some, side=side, truncate=True)  # type: ignore[arg-type]
            if len(found) != len(rows):
                raise Mismatch(f"{side}: {len(found)} texts, expected {len(rows)}")
            errors += [close_vectors(mine, theirs, side) for mine, theirs in zip(found, rows, strict=True)]
        return max(errors)


_UNUSED = partial(word_pieces, more=("[unused0]", "[unused1]"))
_PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_PYLATE_SETTINGS = version_3(
    similarity="MaxSim",
    model_type="ColBERT",
    query_prefix="[Q] ",
    document_prefix="[D] ",
    query_length=32,
    document_length=300,
    attend_to_expansion_tokens=False,
    skiplist_words=_PUNCTUATION,
    do_query_expansion=True,
)
_PYLATE_DENSE = Stage(
    "pylate.models.Dense.Dense",
    {
        "in_features": 64,
        "out_features": 32,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "use_residual": False,
    },
    "1_Dense",
)

LAYOUTS: tuple[Layout, ...] = (
    _layout("naver/splade-cocondenser-ensembledistil", SentenceFolder(_BERT, word_pieces, _splade()), SparseVectors()),
    _layout("naver/splade-v3", SentenceFolder(_BERT, word_pieces, _splade(512)), SparseVectors()),
    _layout("prithivida/Splade_PP_en_v1", SentenceFolder(_BERT, word_pieces, _splade(512)), SparseVectors()),
    _layout(
        "naver/splade-v3-distilbert",
        SentenceFolder(_DISTILBERT, partial(word_pieces, kind="DistilBertTokenizer"), _splade(512)),
        SparseVectors(),
    ),
    _layout(
        "opensearch-project/opensearch-neural-sparse-encoding-v1",
        SentenceFolder(_BERT, word_pieces, _splade(512)),
        SparseVectors(),
    ),
    _layout(
        "opensearch-project/opensearch-neural-sparse-encoding-v2-distill",
        SentenceFolder(_DISTILBERT, partial(word_pieces, kind="DistilBertTokenizer"), _splade(512, "log1p_relu")),
        SparseVectors(),
    ),
    _layout(
        "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill",
        _Router(
            SentenceFolder(_DISTILBERT, partial(word_pieces, kind="DistilBertTokenizer"), _splade(512, "log1p_relu"))
        ),
        refused="Router",
        why="queries have another model than documents",
    ),
    _layout(
        "colbert-ir/colbertv2.0",
        _Colbert(
            TextFolder(Model("HF_ColBERT", "bert", keys=_OLD_KEYS, cls="BertModel"), _UNUSED),
            (
                ("query_token_id", "[unused0]"),
                ("doc_token_id", "[unused1]"),
                ("query_maxlen", 32),
                ("doc_maxlen", 180),
                ("mask_punctuation", True),
                ("attend_to_mask_tokens", False),
                ("dim", 32),
                ("similarity", "cosine"),
            ),
        ),
        LateInteraction(),
    ),
    _layout(
        "answerdotai/answerai-colbert-small-v1",
        _Colbert(
            TextFolder(Model("HF_ColBERT", "bert", keys=_OLD_KEYS, cls="BertModel"), _UNUSED),
            (
                ("query_token_id", "[unused0]"),
                ("doc_token_id", "[unused1]"),
                ("query_token", "[Q]"),
                ("doc_token", "[D]"),
                ("query_maxlen", 32),
                ("doc_maxlen", 512),
                ("mask_punctuation", True),
                ("attend_to_mask_tokens", False),
                ("dim", 32),
            ),
        ),
        LateInteraction(),
    ),
    _layout(
        "lightonai/GTE-ModernColBERT-v1",
        SentenceFolder(
            Model(
                "ModernBertModel",
                "modernbert",
                {"max_position_embeddings": 8192, "local_attention": 128, "global_attn_every_n_layers": 3},
                {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
                kept=("local_attention",),
                without=("rope_parameters", "layer_types"),
            ),
            modern_pairs,
            Sentence((_PYLATE_DENSE,), 299, settings=_PYLATE_SETTINGS),
        ),
        LateInteraction(),
    ),
)
