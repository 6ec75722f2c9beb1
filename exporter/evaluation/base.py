"""What all evaluations have in common: features as dicts of lists, padded into batches of tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch

from runtime.errors import EvaluationError
from runtime.format.manifest import PairTemplate

# One input of the model per entry, as lists by name. Labels are included; names with an underscore are for `score`
# alone.
Features = list[dict[str, Any]]
Metrics = dict[str, float]

_LONGEST = 512


class Evaluation(ABC):
    """One task: reads its files, turns rows into features, and scores into metrics."""

    task: ClassVar[str]
    # The names of the labels in the model's forward, and of the outputs that `score` needs, in order.
    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    # The metric that decides which of two models is better.
    main: ClassVar[str]
    # The label at padded positions.
    _label_fill: ClassVar[int] = -100

    def __init__(
        self,
        tokenizer: Any,
        labels: Sequence[str],
        max_length: int | None = None,
        template: PairTemplate | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise EvaluationError(
                f"the tokenizer is a {type(tokenizer).__name__}",
                "a fast one, which knows the place of each token in the text",
            )
        self.tokenizer = tokenizer
        self.labels = list(labels)
        self.template = template
        self.max_length = min(max_length or _LONGEST, tokenizer.model_max_length, _LONGEST)

    @abstractmethod
    def read(self, path: str | Path) -> list[dict[str, Any]]:
        """The rows of a file.

        Raises:
            EvaluationError: it cannot be read, or does not fit.
        """

    @abstractmethod
    def features(self, rows: Sequence[Mapping[str, Any]]) -> Features:
        """Inputs of the model, at least one per row, in the order of the rows."""

    @abstractmethod
    def score(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> Metrics:
        """The metrics.

        Args:
            rows: as `read` gave them.
            features: as `features` made them.
            scores: for each of `outputs` one array per feature.
        """

    @abstractmethod
    def predictions(
        self, rows: Sequence[Mapping[str, Any]], features: Features, scores: Sequence[Sequence[numpy.ndarray]]
    ) -> list[Any]:
        """The prediction for each row, as text or labels; arguments as for `score`."""

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch, padded to its longest input, labels too."""
        inputs = [{name: one[name] for name in self.tokenizer.model_input_names if name in one} for one in features]
        batch: dict[str, torch.Tensor] = dict(self.tokenizer.pad(inputs, return_tensors="pt"))
        for name in self.label_names:
            if all(one.get(name) is not None for one in features):
                batch[name] = self._labels([one[name] for one in features], batch["input_ids"].shape[1])
        return batch

    def _labels(self, labels: Sequence[Any], length: int) -> torch.Tensor:
        if isinstance(labels[0], int):
            return torch.tensor(labels)
        left = self.tokenizer.padding_side == "left"
        padded = []
        for row in labels:
            rest = [self._label_fill] * (length - len(row))
            padded.append(rest + list(row) if left else list(row) + rest)
        return torch.tensor(padded)

    def number(self, label: str, place: str) -> int:
        """The number of one of the model's labels.

        Raises:
            EvaluationError: the model has no such label.
        """
        if label not in self.labels:
            raise EvaluationError(f"{place}: the label {label!r}", f"one of the model's: {', '.join(self.labels)}")
        return self.labels.index(label)
