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
        if manifest.task in ("text-classification", "reranking") and manifest.labels:
            scores = SCORES[manifest.activation](outputs["logits"][i])
            best = int(scores.argmax())
            yield {
                "label": manifest.labels[best],
                "score": float(scores[best]),
                "scores": dict(zip(manifest.labels, scores.tolist(), strict=True)),
            }
        else:
            yield {name: tensor[i].tolist() for name, tensor in outputs.items()}


def fields(manifest: Manifest, result: Any) -> dict[str, Any]:
    """The result for one text, from the method of `session.text` for the artifact's task."""
    if isinstance(result, torch.Tensor):
        return {manifest.outputs[0].name: result.tolist()}
    if manifest.task == "sparse-embedding":
        return {manifest.outputs[0].name: result}
    if isinstance(result, dict):
        return {name: tensor.tolist() for name, tensor in result.items()}
    if manifest.task == "reranking" and isinstance(result, list):
        return {"ranking": [dataclasses.asdict(ranked) for ranked in result]}
    if manifest.task == "token-classification":
        return {"tags": [dataclasses.asdict(tag) for tag in result]}
    if manifest.task == "fill-mask":
        return {"masks": [[dataclasses.asdict(candidate) for candidate in mask] for mask in result]}
    return dataclasses.asdict(result)
