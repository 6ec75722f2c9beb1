"""Perplexity of a model that generates text on lines of text: e to the mean of -log p per token, in one pass per line.

Each line is read by itself, cut at the longest text that the file admits; its first token is given, the others are
predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporter.config.request import ExportRequest
from exporter.evaluation.base import Metrics
from exporter.evaluation.comparison import Compared
from exporter.loading.loader import Source
from exporter.loading.model_errors import named_model_errors
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import EvaluationError, MetricDropError
from runtime.format.golden import Case
from runtime.verification.likelihood import log_likelihood

_NAME = "perplexity"


@dataclass(frozen=True)
class Lines:
    """The lines as the model's inputs, one case each."""

    path: str
    cases: tuple[Case, ...]

    @property
    def rows(self) -> Sequence[Case]:
        """What was read, to be counted."""
        return self.cases

    def model_metrics(self, adapter: torch.nn.Module, outputs: Sequence[str]) -> Metrics:
        """The perplexity of the original model.

        Raises:
            ModelFailedError: it fails on a line.
        """
        found = []
        for case in self.cases:
            with named_model_errors(f"line {case.name} of {self.path}"), torch.no_grad():
                logits = dict(zip(outputs, adapter(**case.inputs), strict=True))["logits"]
            found.append(log_likelihood(logits, case.inputs["input_ids"]))
        return self.metrics(found)

    def metrics(self, likelihoods: Sequence[float]) -> Metrics:
        """The perplexity, from the log likelihood of each line."""
        tokens = sum(case.inputs["input_ids"].numel() - 1 for case in self.cases)
        surprise = -sum(likelihoods) / tokens
        # Beyond that it is no number of float64, as for a text that the model holds impossible.
        return {_NAME: math.exp(surprise) if surprise < 700 else math.inf}

    def compare(self, model: Metrics, artifact: Metrics, request: ExportRequest) -> Compared:
        """Both perplexities, side by side.

        Raises:
            MetricDropError: the artifact's is higher by more than `request.max_perplexity_rise` per cent.
        """
        before, after = model[_NAME], artifact[_NAME]
        rise, most = 100 * (after / before - 1), request.max_perplexity_rise
        if most is not None and not rise <= most:
            raise MetricDropError(
                f"perplexity on {self.path} is {after:.2f}, {rise:.2f} % above the model's {before:.2f}",
                f"at most {most:g} % above",
                "nothing was written; try another precision, or allow more with --max-perplexity-rise",
            )
        return Compared(self.path, len(self.cases), _NAME, model, artifact)


def read_lines(path: Any, source: Source, plan: TracePlan) -> Lines:
    """Read a file of text; blank lines are left out.

    Raises:
        EvaluationError: it cannot be read, holds no line of two tokens, or the model has no tokenizer.
    """
    if source.tokenizer.fast is None or source.tokenizer.info is None:
        raise EvaluationError(
            f"{source.info.id} has no fast tokenizer", "a fast tokenizer, to evaluate on text", "leave out --evaluate"
        )
    try:
        texts = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {path}: {error}", "a file of UTF-8 text, one text per line") from error
    longest = min(source.tokenizer.info.max_length, plan.dimensions["sequence"].axis.maximum or 2**31)
    cases = []
    for number, text in enumerate(texts, 1):
        ids = source.tokenizer.fast(text, truncation=True, max_length=longest)["input_ids"] if text.strip() else []
        if len(ids) > 1:
            cases.append(Case(f"{number:06}", {"input_ids": torch.tensor([ids])}, {}))
    if not cases:
        raise EvaluationError(f"{path} holds no text of two tokens or more", "one text per line")
    return Lines(str(path), tuple(cases))
