"""All layouts, in the order of the table, and the sample that is quick to try."""

from __future__ import annotations

from functools import lru_cache

from tests.model_matrix.layouts import classifiers, decoders, embeddings, rerankers, sparse, taggers
from tests.model_matrix.layouts.layout import Layout

# One or two of each kind of folder.
SAMPLE = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/gtr-t5-base",
)


@lru_cache(maxsize=1)
def all_layouts() -> tuple[Layout, ...]:
    """Every layout."""
    parts = (embeddings, decoders, rerankers, sparse, classifiers, taggers)
    return tuple(layout for part in parts for layout in part.LAYOUTS)
