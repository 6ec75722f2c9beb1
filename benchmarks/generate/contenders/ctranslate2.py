"""CTranslate2. It takes tokens as texts, by the tokenizer's own table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.generate.contenders import RefusedError, Write, Writers, Written
from benchmarks.generate.rows import Job

_TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def writers(job: Job) -> Writers:
    import ctranslate2

    supported = ctranslate2.get_supported_compute_types("cpu")
    if job.precision not in _TYPES or _TYPES[job.precision] not in supported:
        raise RefusedError(f"CTranslate2 has {', '.join(sorted(supported))} on this processor")
    return {"as it is": lambda: _load(job)}


def _load(job: Job) -> Write:
    import ctranslate2

    generator = ctranslate2.Generator(
        job.path, device="cpu", compute_type=_TYPES[job.precision], inter_threads=1, intra_threads=job.threads
    )
    words: list[str] = json.loads((Path(job.path) / "vocabulary.json").read_text())

    def write(prompts: Sequence[Sequence[int]], count: int) -> Written:
        start = time.perf_counter()
        moments: list[list[float]] = [[] for _ in prompts]

        def take(step: Any) -> bool:
            moments[step.batch_id].append(time.perf_counter() - start)
            return False

        found = generator.generate_batch(
            [[words[one] for one in prompt] for prompt in prompts],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
            callback=take,
        )
        return Written([list(one.sequences_ids[0]) for one in found], moments)

    return write
