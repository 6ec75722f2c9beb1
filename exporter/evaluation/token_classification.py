"""Token classification: CoNLL files with labels B-, I- and O. Metrics: precision, recall and F1 of entities.

A word has the label of its first token; words beyond the model's maximum length are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy

from exporter.evaluation import metrics
from exporter.evaluation.base import Evaluation, Features, Metrics
from exporter.evaluation.files import read_conll


class TokenClassification(Evaluation):
    """One label per word."""

    task: ClassVar[str] = "token-classification"
    main: ClassVar[str] = "f1"

    def read(self, path: str | Path) -> list[dict[str, Any]]:
        """Rows with `words` and `labels`."""
        return read_conll(path)

    def features(self, rows: Sequence[Mapping[str, Any]]) -> Features:
        """One per row; a token that does not begin a word has the label -100."""
        words = [row["words"] for row in rows]
        encoded = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=self.max_length)
        made = []
        for index, row in enumerate(rows):
            numbers = [self.number(label, str(row.get("place", index))) for label in row["labels"]]
            before: list[int | None] = [None, *encoded.word_ids(index)[:-1]]
            labels = [
                -100 if word is None or word == last else numbers[word]
                for word, last in zip(encoded.word_ids(index), before, strict=True)
            ]
            made.append({name: encoded[name][index] for name in encoded} | {"labels": labels})
        return made

    def predictions(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> list[Any]:
        """The labels of the words within the maximum length."""
        return [
            [
                self.labels[int(numpy.argmax(row))]
                for row, label in zip(tokens, feature["labels"], strict=False)
                if label != -100
            ]
            for tokens, feature in zip(scores[0], features, strict=True)
        ]

    def score(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> Metrics:
        """Entities' precision, recall and F1; accuracy of words."""
        expected = [[self.labels[label] for label in feature["labels"] if label != -100] for feature in features]
        return metrics.entities(self.predictions(rows, features, scores), expected)
