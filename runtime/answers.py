"""Make a readable answer of output tensors, a row a text.

In: the manifest and a session's outputs. Out: one JSON-ready dict a row. Classes become labels with
scores; everything else is given as numbers, as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from runtime.manifest import Manifest

_SCORES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
    "none": lambda logits: logits,
}


def rows(manifest: Manifest, outputs: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """One dict for each row of the batch."""
    batch = next(iter(outputs.values())).shape[0]
    for i in range(batch):
        if manifest.task == "text-classification" and manifest.labels:
            scores = _SCORES[manifest.activation](outputs["logits"][i])
            best = int(scores.argmax())
            yield {
                "label": manifest.labels[best],
                "score": float(scores[best]),
                "scores": dict(zip(manifest.labels, scores.tolist(), strict=True)),
            }
        else:
            yield {name: tensor[i].tolist() for name, tensor in outputs.items()}
