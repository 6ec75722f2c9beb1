"""Compare the metrics of the model and of the artifact on a file of labelled examples.

A model without a fast tokenizer, a task without a metric, and a file that does not fit are refused (EvaluationError),
and so is a drop larger than the request allows (MetricDropError).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.config.request import ExportRequest
from exporter.evaluation import Evaluation, Features, Metrics, evaluation_for
from exporter.loading.loader import Source
from exporter.loading.model_errors import named_model_errors
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import EvaluationError, MetricDropError
from runtime.format.golden import Case

# Rows per batch, padded to the longest of them, as a server would.
_BATCH = 8
# The outputs by name, one entry per case.
Outputs = Sequence[Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Compared:
    """Metrics by name, of the model in eager fp32 and of the artifact; `main` is the one that is judged."""

    file: str
    examples: int
    main: str
    model: Metrics
    artifact: Metrics

    @property
    def summary(self) -> str:
        """For people."""
        both = ", ".join(f"{name} {value:.2f} → {self.artifact[name]:.2f}" for name, value in self.model.items())
        return f"{both} (eager fp32 → artifact, {self.examples} examples of {self.file})"


@dataclass(frozen=True)
class Labelled:
    """The file as batches of the model's inputs (`cases`), and what the predictions are compared with."""

    path: str
    evaluation: Evaluation
    rows: Sequence[Mapping[str, Any]]
    features: Features
    cases: tuple[Case, ...]

    def model_metrics(self, adapter: torch.nn.Module, outputs: Sequence[str]) -> Metrics:
        """The metrics of the original model.

        Raises:
            ModelFailedError: it fails on a batch.
        """
        found = []
        for case in self.cases:
            with named_model_errors(f"batch {case.name} of {self.path}"), torch.no_grad():
                found.append(dict(zip(outputs, adapter(**case.inputs), strict=True)))
        return self.score(found)

    def score(self, outputs: Outputs) -> Metrics:
        """The metrics of outputs for `cases`, in order."""
        scores = [
            [row.float().numpy() for output in outputs for row in output[name]] for name in self.evaluation.outputs
        ]
        return self.evaluation.score(self.rows, self.features, scores)

    def compare(self, model: Metrics, artifact: Metrics, request: ExportRequest) -> Compared:
        """Both metrics, side by side.

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
            f"{source.info.id} has no fast tokenizer",
            "a fast tokenizer, to evaluate on a file of text",
            "leave out --evaluate",
        )
    longest = min(filter(None, (source.tokenizer.info.max_length, source.longest_sequence)))
    template = source.tokenizer.info.pair_template
    evaluation = evaluation_for(source.task.name, source.tokenizer.fast, source.labels, longest, template)
    rows = evaluation.read(path)
    features = evaluation.features(rows)
    cases = []
    for begin in range(0, len(features), _BATCH):
        batch = evaluation.collate(features[begin : begin + _BATCH])
        inputs = {spec.name: batch[spec.name] for spec in plan.inputs if spec.name in batch}
        cases.append(Case(f"{begin // _BATCH:06}", inputs, {}))
    return Labelled(str(path), evaluation, rows, features, tuple(cases))
