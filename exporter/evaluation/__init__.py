"""Metrics of a text model on a file of labelled examples: those that people report for the task, in points of 100.

A file that does not fit the task is refused (EvaluationError). Needs the packages of the extra `evaluate`.

    evaluation = evaluation_for("text-classification", tokenizer, labels)
    rows = evaluation.read("validation.csv")
    features = evaluation.features(rows)
    metrics = evaluation.score(rows, features, scores)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.evaluation.base import Evaluation, Features, Metrics
from exporter.evaluation.question_answering import QuestionAnswering
from exporter.evaluation.reranking import Reranking
from exporter.evaluation.text_classification import TextClassification
from exporter.evaluation.token_classification import TokenClassification
from runtime.errors import EvaluationError
from runtime.format.manifest import PairTemplate

__all__ = ["EVALUATIONS", "Evaluation", "Features", "Metrics", "evaluation_for"]

EVALUATIONS: dict[str, type[Evaluation]] = {
    kind.task: kind for kind in (TextClassification, TokenClassification, QuestionAnswering, Reranking)
}


def evaluation_for(
    task: str,
    tokenizer: Any,
    labels: Sequence[str],
    max_length: int | None = None,
    template: PairTemplate | None = None,
) -> Evaluation:
    """The evaluation of a task.

    Args:
        task: a task of `exporter.config.tasks`.
        tokenizer: a fast tokenizer of transformers.
        labels: the model's, in order.
        max_length: in tokens; None: the tokenizer's, at most 512.
        template: what stands around query and document.

    Raises:
        EvaluationError: the task has none.
    """
    if task not in EVALUATIONS:
        raise EvaluationError(f"there is no metric for {task}", f"one of {', '.join(EVALUATIONS)}")
    if template is not None and task != Reranking.task:
        raise EvaluationError(
            f"pairs go through a chat template, which {task} is not evaluated with", "a model that takes texts"
        )
    return EVALUATIONS[task](tokenizer, labels, max_length, template)
