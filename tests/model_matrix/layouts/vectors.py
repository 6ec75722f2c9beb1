"""Comparisons of vectors and scores with sentence-transformers: SentenceTransformer, CrossEncoder, SparseEncoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder

from runtime import Session
from tests.model_matrix.layouts.layout import Mismatch
from tests.model_matrix.layouts.texts import DOCUMENTS, PREMISES, QUERY, TEXTS

FLOAT = {"dtype": torch.float32}
# 1 less the cosine, and the share of a vector's length.
_COSINE, _LENGTH = 1e-5, 1e-3
# Of the largest score.
_SCORE = 1e-4


def distinct(rows: torch.Tensor) -> None:
    """Check that the library's own vectors differ: alike ones could not reveal a wrong file."""
    normal = torch.nn.functional.normalize(rows.double(), dim=-1)
    alike = float((normal @ normal.T - torch.eye(len(rows), dtype=torch.double)).max())
    if not alike < 0.9995:
        raise AssertionError(f"the library's vectors are alike: cosine {alike:.5f}")


def close_vectors(found: torch.Tensor, expected: torch.Tensor, what: str) -> float:
    """1 less the smallest cosine; vectors of another direction or length are a mismatch."""
    if found.shape != expected.shape:
        raise Mismatch(f"{what}: vectors of shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    found, expected = found.double(), expected.double()
    error = 1 - float(torch.nn.functional.cosine_similarity(found, expected, dim=-1).min())
    length = float((found.norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12) - 1).abs().max())
    if not error <= _COSINE or not length <= _LENGTH:
        raise Mismatch(f"{what}: cosine {1 - error:.6f}, lengths differ by {length:.1e}")
    return max(0.0, error)


def close_scores(found: torch.Tensor, expected: torch.Tensor, what: str, most: float = _SCORE) -> float:
    """The largest difference as a share of the largest score; more than the bound is a mismatch."""
    if found.shape != expected.shape:
        raise Mismatch(f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    if not expected.numel():
        return 0.0
    largest = expected.double().abs().max().clamp_min(1e-9)
    error = float((found.double() - expected.double()).abs().max() / largest)
    if not error <= most:
        raise Mismatch(f"{what}: differs by {error:.1e} of the largest score")
    return error


@dataclass(frozen=True)
class Embeddings:
    """`SentenceTransformer.encode`, without a prompt and with the named ones, in a batch and alone."""

    prompts: Sequence[str | None] = (None,)
    dimensions: Sequence[int] = ()

    def expected(self, folder: Path) -> Any:
        """By prompt, and by number of dimensions."""
        model = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT)
        found = {name: torch.as_tensor(model.encode(list(TEXTS), prompt_name=name)).float() for name in self.prompts}
        for rows in found.values():
            distinct(rows)
        shorter = {}
        for size in self.dimensions:
            cut = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT, truncate_dim=size)
            shorter[size] = torch.as_tensor(cut.encode(list(TEXTS), normalize_embeddings=True)).float()
        return found, shorter

    def compare(self, session: Session, expected: Any) -> float:
        """1 less the smallest cosine."""
        whole, shorter = expected
        errors = [0.0]
        for name, rows in whole.items():
            found = torch.stack(session.text.embed(TEXTS, prompt_name=name, truncate=True))
            errors.append(close_vectors(found, rows, f"prompt {name}"))
            alone = session.text.embed(TEXTS[1:2], prompt_name=name)[0]
            errors.append(close_vectors(alone[None], rows[1:2], f"prompt {name}, one text"))
        for size, rows in shorter.items():
            found = torch.stack(session.text.embed(TEXTS, dimensions=size, truncate=True))
            found = torch.nn.functional.normalize(found, dim=-1)
            errors.append(close_vectors(found, rows, f"{size} dimensions"))
        return max(errors)


@dataclass(frozen=True)
class Ranks:
    """`CrossEncoder.rank` with its scores, for a model of one label."""

    def expected(self, folder: Path) -> Any:
        """The score of each document, in the caller's order."""
        model = CrossEncoder(str(folder), device="cpu", model_kwargs=FLOAT)
        scores = torch.as_tensor(model.predict([(QUERY, one) for one in DOCUMENTS])).float().reshape(-1)
        if not scores.std() > 1e-3:
            raise AssertionError("the library's scores are alike")
        return scores

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores."""
        ranked = session.text.rerank(QUERY, DOCUMENTS, truncate=True)
        scores = [one.score for one in sorted(ranked, key=lambda one: one.index)]
        return close_scores(torch.tensor(scores), expected, "scores")


@dataclass(frozen=True)
class PairScores:
    """`CrossEncoder.predict` of a model of several labels."""

    def expected(self, folder: Path) -> Any:
        """A row of scores per pair, and the names of the labels."""
        model = CrossEncoder(str(folder), device="cpu", model_kwargs=FLOAT)
        scores = torch.as_tensor(model.predict(list(PREMISES))).float()
        labels = model.config.id2label
        return scores, [labels[number] for number in range(scores.shape[1])]

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores."""
        scores, labels = expected
        found = session.text.classify(PREMISES, truncate=True)
        rows = torch.tensor([[one.scores[label] for label in labels] for one in found])
        return close_scores(rows, scores, "scores")


@dataclass(frozen=True)
class SparseVectors:
    """`SparseEncoder.encode_query` and `encode_document`."""

    def expected(self, folder: Path) -> Any:
        """A weight per entry of the vocabulary."""
        model = SparseEncoder(str(folder), device="cpu", model_kwargs=FLOAT)
        rows = torch.as_tensor(model.encode(list(TEXTS), convert_to_sparse_tensor=False)).float()
        distinct(rows)
        return rows

    def compare(self, session: Session, expected: Any) -> float:
        """1 less the smallest cosine."""
        found = torch.stack(session.text.embed(TEXTS, truncate=True))
        return close_vectors(found, expected, "weights")
