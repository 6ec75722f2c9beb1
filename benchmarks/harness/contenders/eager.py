"""The model as transformers runs it: one variant per attention implementation."""

from __future__ import annotations

import torch

from benchmarks.harness.contenders import Job, Loaded, Variants
from benchmarks.harness.contenders.torch_feed import dtype_of, loaded
from benchmarks.harness.models import load_model


def variants(job: Job) -> Variants:
    return {
        "sdpa attention": lambda: _load(job, "sdpa"),
        "written-out attention": lambda: _load(job, "eager"),
    }


def _load(job: Job, attention: str) -> Loaded:
    dtype = dtype_of(job.precision)
    module: torch.nn.Module = load_model(job.model, attention, dtype)
    if job.precision == "int8":
        # The only int8 that needs no other form of the model: weights once, activations at every call.
        config = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
        module = torch.ao.quantization.quantize_dynamic(module, config, dtype=torch.qint8)
    return loaded(job.model, module, dtype)
