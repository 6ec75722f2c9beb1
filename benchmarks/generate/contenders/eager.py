"""The model as transformers writes with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.generate.contenders import RefusedError, Write, Writers, Written
from benchmarks.generate.rows import Job


def writers(job: Job) -> Writers:
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if job.precision not in dtypes:
        raise RefusedError(f"transformers has no {job.precision} of its own for processors")
    return {"sdpa attention": lambda: _load(job, dtypes[job.precision])}


def _load(job: Job, dtype: torch.dtype) -> Write:
    import transformers

    torch.set_num_threads(job.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(job.path, dtype=dtype).eval()
    # Its stop token would be forbidden by `min_new_tokens` otherwise, for which each step pays.
    model.generation_config.eos_token_id = None

    def write(prompts: Sequence[Sequence[int]], count: int) -> Written:
        start, moments = time.perf_counter(), []

        def tick(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            moments.append(time.perf_counter() - start)
            return torch.zeros(len(ids), dtype=torch.bool)

        ids = torch.tensor([list(prompt) for prompt in prompts])
        with torch.inference_mode():
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=count,
                stopping_criteria=[tick],
            )
        return Written(found[:, ids.shape[1] :].tolist(), [moments] * len(prompts))

    return write
