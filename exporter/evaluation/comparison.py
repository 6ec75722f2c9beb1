"""The model's metric and the artifact's, side by side, on a file of labelled examples.

In: the file, a source and a plan; then the answers of either. Out: metrics in points of 100. Refuses (EvaluationError)
a model without a fast tokenizer, a task without a metric, a file that does not fit; (MetricDropError) a drop larger
than allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.config.request import ExportRequest
from exporter.evaluation import Evaluation, Features, Metrics, evaluation_for
from exporter.loading.loader import Source
from exporter.loading.model_errors import failing_by_name
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import EvaluationError, MetricDropError
from runtime.format.golden import Case

# Rows a batch; padded to the longest of them, as a server would.
_BATCH = 8
Answers = Sequence[Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Compared:
    """Metrics by name, of the model in eager fp32 and of the artifact; `main` is the one that is judged."""

    file: str
    examples: int
    main: str
    model: Metrics
    artifact: Metrics

    @property
    def words(self) -> str:
        """For people."""
        both = ", ".join(f"{name} {value:.2f} → {self.artifact[name]:.2f}" for name, value in self.model.items())
        return f"{both} (eager fp32 → artifact, {self.examples} examples of {self.file})"


@dataclass(frozen=True)
class Labelled:
    """The file as batches of the model's inputs, and what its answers are compared with."""

    path: str
    evaluation: Evaluation
    rows: Sequence[Mapping[str, Any]]
    features: Features
    cases: tuple[Case, ...]

    def answered_by(self, adapter: torch.nn.Module, outputs: Sequence[str]) -> Metrics:
        """The metrics of the original model.

        Raises:
            ModelFailedError: it fails on a batch.
        """
        answers = []
        for case in self.cases:
            with failing_by_name(f"batch {case.name} of {self.path}"), torch.no_grad():
                answers.append(dict(zip(outputs, adapter(**case.inputs), strict=True)))
        return self.score(answers)

    def score(self, answers: Answers) -> Metrics:
        """The metrics of answers to `cases`, in order."""
        scores = [
            [row.float().numpy() for answer in answers for row in answer[name]] for name in self.evaluation.outputs
        ]
        return self.evaluation.score(self.rows, self.features, scores)

    def compare(self, model: Metrics, artifact: Metrics, request: ExportRequest) -> Compared:
        """Both, side by side.

        Raises:
            MetricDropError: the artifact's main metric is lower by more than `request.max_metric_drop`.
        """
        main = self.evaluation.main
        compared = Compared(self.path, len(self.rows), main, model, artifact)
        drop = model[main] - artifact[main]
        if request.max_metric_drop is not None and drop > request.max_metric_drop:
            raise MetricDropError(
                f"{main} on {self.path} is {artifact[main]:.2f}, {drop:.2f} points below the model's {model[main]:.2f}",
                f"at most {request.max_metric_drop:g} points below",
                "nothing was written; try another precision or backend, or allow more with --max-metric-drop",
            )
        return compared


def read_labelled(path: Any, source: Source, plan: TracePlan) -> Labelled:
    """Read a file for the source's task.

    Raises:
        EvaluationError: see the module's docstring.
        ExtraMissingError: a package for the metrics is missing.
    """
    if source.tokenizer.fast is None or source.tokenizer.info is None:
        raise EvaluationError(
            f"{source.info.id} has no fast tokenizer", "one, to evaluate on a file of text", "leave out --evaluate"
        )
    longest = min(filter(None, (source.tokenizer.info.max_length, source.longest_sequence)))
    evaluation = evaluation_for(source.task.name, source.tokenizer.fast, source.labels, longest)
    rows = evaluation.read(path)
    features = evaluation.features(rows)
    cases = []
    for begin in range(0, len(features), _BATCH):
        batch = evaluation.collate(features[begin : begin + _BATCH])
        inputs = {spec.name: batch[spec.name] for spec in plan.inputs if spec.name in batch}
        cases.append(Case(f"{begin // _BATCH:06}", inputs, {}))
    return Labelled(str(path), evaluation, rows, features, tuple(cases))
