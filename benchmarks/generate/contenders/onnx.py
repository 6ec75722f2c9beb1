"""ONNX Runtime GenAI. Its threads are set in the file beside the model, where the converter puts them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.generate.contenders import Write, Writers, Written
from benchmarks.generate.rows import Job


def writers(job: Job) -> Writers:
    return {"as it is": lambda: _load(job)}


def _load(job: Job) -> Write:
    import onnxruntime_genai

    model = onnxruntime_genai.Model(job.path)

    def write(prompts: Sequence[Sequence[int]], count: int) -> Written:
        import numpy

        start = time.perf_counter()
        parameters = onnxruntime_genai.GeneratorParams(model)
        length = len(prompts[0]) + count
        # As long as the least length: its stop token ends nothing.
        parameters.set_search_options(
            do_sample=False, batch_size=len(prompts), max_length=length, min_length=length, early_stopping=False
        )
        generator = onnxruntime_genai.Generator(model, parameters)
        generator.append_tokens(numpy.array([list(prompt) for prompt in prompts], dtype=numpy.int32))
        moments = []
        for _ in range(count):
            generator.generate_next_token()
            moments.append(time.perf_counter() - start)
        found = [[int(one) for one in generator.get_sequence(row)[-count:]] for row in range(len(prompts))]
        return Written(found, [moments] * len(prompts))

    return write
