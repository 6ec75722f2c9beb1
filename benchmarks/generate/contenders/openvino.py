"""OpenVINO GenAI: one variant per backend of attention."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.generate.contenders import RefusedError, Write, Writers, Written
from benchmarks.generate.rows import Job


def writers(job: Job) -> Writers:
    import openvino

    if job.precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RefusedError("OpenVINO computes bf16 on processors with instructions for it alone")
    return {f"{name} attention": lambda name=name: _load(job, name) for name in ("SDPA", "PA")}  # type: ignore[misc]


def _load(job: Job, attention: str) -> Write:
    import numpy
    import openvino
    import openvino_genai

    properties: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": job.threads,
        "ATTENTION_BACKEND": attention,
        # Of what quantised weights leave, as OpenVINO chooses: bf16 where the processor has it.
        **(
            {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[job.precision]}
            if job.precision[0] != "i"
            else {}
        ),
    }
    if attention == "PA":
        # It would keep the prompts of earlier calls, and cut long ones into pieces of 256 tokens.
        properties["scheduler_config"] = scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.max_num_batched_tokens = 8192
    pipeline = openvino_genai.LLMPipeline(job.path, "CPU", **properties)

    def write(prompts: Sequence[Sequence[int]], count: int) -> Written:
        moments: list[float] = []

        class Ticks(openvino_genai.StreamerBase):  # type: ignore[misc]
            def write(self, token: int | list[int]) -> openvino_genai.StreamingStatus:
                moments.extend([time.perf_counter() - start] * (1 if isinstance(token, int) else len(token)))
                return openvino_genai.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        config = openvino_genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        ids = numpy.array([list(prompt) for prompt in prompts], dtype=numpy.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
        start = time.perf_counter()
        if len(prompts) == 1:
            found = pipeline.generate(inputs, config, Ticks())
            return Written([list(found.tokens[0])], [moments])
        # It streams one row alone. Its own measurements tell when the tokens of several came.
        found = pipeline.generate(inputs, config)
        first = found.perf_metrics.get_ttft().mean / 1000
        whole = time.perf_counter() - start
        step = (whole - first) / (count - 1) if count > 1 else 0.0
        steps = [first + number * step for number in range(count)]
        return Written([list(row) for row in found.tokens], [steps] * len(prompts))

    return write
