"""Put an artifact in the place of a Trainer's model, so that an evaluation measures the file itself.

Inputs that the artifact does not support are refused as by the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

from runtime import Session


class ArtifactModel(torch.nn.Module):
    """For evaluation and prediction; it has no weights to train.

    If the batch has labels, the loss is that of transformers' own head for the task: text classification (by the
    labels' dtype one class, several classes, or numbers), token classification and masked words (-100 is ignored), and
    question answering. Other tasks have no loss.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        labels = session.manifest.labels
        # What a Trainer reads.
        self.config = SimpleNamespace(
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            num_labels=len(labels),
            keys_to_ignore_at_inference=[],
            model_type=session.manifest.model.type,
        )
        self._names = {spec.name for spec in session.manifest.inputs}
        self.eval()

    def forward(self, **batch: Any) -> dict[str, torch.Tensor]:
        """The outputs by name, and before them `loss` if the batch has the task's labels.

        Raises:
            InputError, ArtifactFailedError: as for `Session`.
        """
        outputs = self.session(**{name: value for name, value in batch.items() if name in self._names})
        loss = _loss(self.session.manifest.task, outputs, batch)
        return outputs if loss is None else {"loss": loss} | outputs


def _loss(task: str, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, Any]) -> torch.Tensor | None:
    if task == "question-answering":
        ends = [batch[name] for name in ("start_positions", "end_positions") if batch.get(name) is not None]
        if len(ends) < 2:
            return None
        logits = [outputs["start_logits"], outputs["end_logits"]]
        # Answers outside the text are ignored, as in transformers' head.
        length = logits[0].shape[1]
        losses = [
            functional.cross_entropy(scores, positions.reshape(-1).clamp(0, length), ignore_index=length)
            for scores, positions in zip(logits, ends, strict=True)
        ]
        return (losses[0] + losses[1]) / 2
    labels = batch.get("labels")
    if labels is None or "logits" not in outputs:
        return None
    scores = outputs["logits"]
    if task in ("token-classification", "fill-mask"):
        return functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))
    if task not in ("text-classification", "reranking"):
        return None
    if scores.shape[-1] == 1:
        return functional.mse_loss(scores.squeeze(), labels.squeeze().float())
    if labels.is_floating_point():
        return functional.binary_cross_entropy_with_logits(scores, labels)
    return functional.cross_entropy(scores, labels.reshape(-1))
