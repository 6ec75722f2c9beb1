"""torch.compile with AMD's backend zentorch, for the row's exact shape; in the environment .venv-zen."""

from __future__ import annotations

import torch

from benchmarks.harness.contenders import Job, Loaded, Variants
from benchmarks.harness.contenders.torch_feed import dtype_of, loaded
from benchmarks.harness.models import load_model


def variants(job: Job) -> Variants:
    return {"zentorch": lambda: _load(job)}


def _load(job: Job) -> Loaded:
    import torch._inductor.config as inductor
    import zentorch  # noqa: F401 - registers the backend

    inductor.freezing = True
    dtype = dtype_of(job.precision)
    module = load_model(job.model, "sdpa", dtype)
    return loaded(job.model, torch.compile(module, backend="zentorch", dynamic=False), dtype)
