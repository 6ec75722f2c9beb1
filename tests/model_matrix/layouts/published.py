"""All layouts, in the order of the table, and the sample that is quick to try."""

from __future__ import annotations

from functools import lru_cache

from tests.model_matrix.layouts import (
    classifiers,
    decoders,
    embeddings,
    others,
    rerankers,
    sparse,
    speech,
    taggers,
    vision,
)
from tests.model_matrix.layouts.layout import Layout

# One or two of each kind of folder.
SAMPLE = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/LaBSE",
    "Qwen/Qwen3-Embedding-0.6B",
    "BAAI/bge-reranker-base",
    "cross-encoder/nli-deberta-v3-base",
    "naver/splade-v3",
    "cardiffnlp/twitter-roberta-base-sentiment-latest",
    "dslim/bert-base-NER",
    "FacebookAI/roberta-base",
    "google/vit-base-patch16-224",
    "facebook/wav2vec2-base-960h",
    "Alibaba-NLP/gte-base-en-v1.5",
)


@lru_cache(maxsize=1)
def all_layouts() -> tuple[Layout, ...]:
    """Every layout."""
    parts = (embeddings, decoders, rerankers, sparse, classifiers, taggers, vision, speech, others)
    return tuple(layout for part in parts for layout in part.LAYOUTS)
