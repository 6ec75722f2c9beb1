"""The metrics, computed by the packages that people report them with; each in points of 100."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from runtime.errors import ExtraMissingError


@contextmanager
def _needs(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ExtraMissingError(
            f"the package {package} is not installed",
            f"{package}, which computes the metric",
            'pip install "export-model[evaluate]"',
        ) from error


def classes(found: Sequence[int], expected: Sequence[int]) -> dict[str, float]:
    """Accuracy, and F1 as the mean over the classes (scikit-learn)."""
    with _needs("scikit-learn"):
        from sklearn.metrics import accuracy_score, f1_score
    return {
        "accuracy": 100 * float(accuracy_score(expected, found)),
        "f1": 100 * float(f1_score(expected, found, average="macro")),
    }


def entities(found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, and accuracy of words (seqeval)."""
    with _needs("seqeval"):
        from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
    both = [list(map(list, expected)), list(map(list, found))]
    return {
        "f1": 100 * float(f1_score(*both, zero_division=0)),
        "precision": 100 * float(precision_score(*both, zero_division=0)),
        "recall": 100 * float(recall_score(*both, zero_division=0)),
        "accuracy": 100 * float(accuracy_score(*both)),
    }


def rankings(scores: Sequence[Any], relevance: Sequence[Sequence[int]], first: int = 10) -> dict[str, float]:
    """NDCG and MRR of the first documents of each ranking, means over the rankings (torchmetrics)."""
    with _needs("torchmetrics"):
        from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_reciprocal_rank
    # torchmetrics takes a document whose score is not above 0 for one that was not found; logits may be below.
    found = [
        (torch.as_tensor(one) - min(one) + 1, torch.tensor(wanted))
        for one, wanted in zip(scores, relevance, strict=True)
    ]
    gains = [float(retrieval_normalized_dcg(one, wanted, top_k=first)) for one, wanted in found]
    ranks = [float(retrieval_reciprocal_rank(one, wanted > 0, top_k=first)) for one, wanted in found]
    return {f"ndcg@{first}": 100 * sum(gains) / len(gains), f"mrr@{first}": 100 * sum(ranks) / len(ranks)}


def spans(found: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Exact match and F1 of SQuAD (torchmetrics)."""
    with _needs("torchmetrics"):
        from torchmetrics.functional.text import squad
    predictions = [{"prediction_text": found[row["id"]], "id": row["id"]} for row in rows]
    targets = [
        {
            "answers": {"text": [text for text, _ in row["answers"]], "answer_start": [at for _, at in row["answers"]]},
            "id": row["id"],
        }
        for row in rows
    ]
    return {name: float(value) for name, value in squad(predictions, targets).items()}
