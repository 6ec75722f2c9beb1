"""Reranking: JSON lines of queries, with documents and how relevant each is. Metrics: NDCG and MRR of the first ten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy

from exporter.evaluation import metrics
from exporter.evaluation.base import Evaluation, Features, Metrics
from exporter.evaluation.files import read_table
from runtime.errors import EvaluationError
from runtime.text.pair_template import cut, joined


class Reranking(Evaluation):
    """One score per pair of query and document."""

    task: ClassVar[str] = "reranking"
    main: ClassVar[str] = "ndcg@10"

    def read(self, path: str | Path) -> list[dict[str, Any]]:
        """Rows with `query`, `documents` and `relevance`, a number per document, of which one at least is above 0.

        Raises:
            EvaluationError: a row that does not fit.
        """
        rows = read_table(path, ("query", "documents", "relevance"))
        for row in rows:
            query, documents, relevance = row["query"], row["documents"], row["relevance"]
            texts = isinstance(documents, list) and all(isinstance(one, str) for one in [query, *documents])
            numbers = isinstance(relevance, list) and all(_is_relevance(one) for one in relevance)
            if not texts or not numbers or len(documents) != len(relevance) or not any(relevance):
                raise EvaluationError(
                    f"{row['place']} does not say how relevant each document is",
                    'a text "query", a list of texts "documents", a list "relevance" with a whole number from 0 for '
                    "each, one of them above 0",
                )
        return rows

    def features(self, rows: Sequence[Mapping[str, Any]]) -> Features:
        """One per document; longer pairs are truncated."""
        pairs = [(row["query"], document) for row in rows for document in row["documents"]]
        if self.template is not None:
            return [self._in_template(pair) for pair in pairs]
        encoded = self.tokenizer(
            [query for query, _ in pairs],
            [document for _, document in pairs],
            truncation=True,
            max_length=self.max_length,
        )
        return [{name: encoded[name][index] for name in encoded} for index in range(len(pairs))]

    def _in_template(self, pair: tuple[str, str]) -> dict[str, Any]:
        assert self.template is not None
        encoding = self.tokenizer.backend_tokenizer.encode(joined(self.template, pair), add_special_tokens=False)
        tokens = cut(self.template, encoding, self.max_length, self.tokenizer.truncation_side)
        return {"input_ids": list(tokens.ids), "attention_mask": list(tokens.attention_mask)}

    def predictions(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> list[Any]:
        """The places of each row's documents, the best first."""
        return [numpy.argsort(-found, kind="stable").tolist() for found in _by_row(rows, scores[0])]

    def score(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> Metrics:
        """NDCG and MRR, means over the queries."""
        return metrics.rankings(_by_row(rows, scores[0]), [row["relevance"] for row in rows])


def _by_row(rows: Sequence[Mapping[str, Any]], scores: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    """The scores of each row's documents."""
    ends = numpy.cumsum([len(row["documents"]) for row in rows])
    return numpy.split(numpy.array([float(one[0]) for one in scores]), ends[:-1])


def _is_relevance(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**31
