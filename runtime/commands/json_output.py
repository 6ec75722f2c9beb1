"""Turn output tensors, or results of `session.text`, into JSON-ready dicts, one per row or text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from runtime.format.manifest import Manifest
from runtime.text.classification import SCORES


def rows(manifest: Manifest, outputs: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """One dict for each row of the batch."""
    batch = next(iter(outputs.values())).shape[0]
    for i in range(batch):
        if manifest.task == "text-classification" and manifest.labels:
            scores = SCORES[manifest.activation](outputs["logits"][i])
            best = int(scores.argmax())
            yield {
                "label": manifest.labels[best],
                "score": float(scores[best]),
                "scores": dict(zip(manifest.labels, scores.tolist(), strict=True)),
            }
        else:
            yield {name: tensor[i].tolist() for name, tensor in outputs.items()}


def fields(manifest: Manifest, answer: Any) -> dict[str, Any]:
    """One text's answer: what the method of `session.text` for the artifact's task has returned for it."""
    if isinstance(answer, torch.Tensor):
        return {manifest.outputs[0].name: answer.tolist()}
    if isinstance(answer, dict):
        return {name: tensor.tolist() for name, tensor in answer.items()}
    if manifest.task == "token-classification":
        return {"tags": [dataclasses.asdict(tag) for tag in answer]}
    if manifest.task == "fill-mask":
        return {"masks": [[dataclasses.asdict(candidate) for candidate in mask] for mask in answer]}
    return dataclasses.asdict(answer)
