"""Artifacts of this project, as a user runs them: `runtime.load` and named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.harness.contenders import Job, Loaded, Variants
from benchmarks.harness.rows import MODELS


def variants(job: Job) -> Variants:
    return {"session": lambda: _load(job)}


def _load(job: Job) -> Loaded:
    import runtime

    session = runtime.load(job.files["artifact"], threads=job.threads)
    wanted = {spec.name for spec in session.manifest.inputs}
    output = MODELS[job.model].output

    def feed(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(value) for name, value in arrays.items() if name in wanted}

    return Loaded(feed, lambda tensors: session(**tensors), lambda answer: answer[output].numpy())
