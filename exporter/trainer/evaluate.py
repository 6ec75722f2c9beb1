"""Predict with a Trainer on labelled examples, and compute the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from exporter.evaluation import Evaluation


def evaluate_rows(
    trainer: Any, evaluation: Evaluation, rows: Sequence[Mapping[str, Any]], prefix: str = "eval"
) -> tuple[dict[str, float], list[Any]]:
    """Run `trainer.predict` on all rows.

    Returns:
        The task's metrics in points of 100, and those of the Trainer (`eval_loss`, `eval_samples_per_second`, in jit
        mode `eval_jit_compilation_time`), all with the prefix; the predictions in the order of the rows.
    """
    features = evaluation.features(rows)
    output = trainer.predict(features, metric_key_prefix=prefix)
    predictions = output.predictions if isinstance(output.predictions, tuple) else (output.predictions,)
    scores: list[Sequence[numpy.ndarray]] = [numpy.asarray(each) for each in predictions[: len(evaluation.outputs)]]
    found = {f"{prefix}_{name}": value for name, value in evaluation.score(rows, features, scores).items()}
    return output.metrics | found, evaluation.predictions(rows, features, scores)
