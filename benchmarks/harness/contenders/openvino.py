"""OpenVINO, with dynamic and static shapes, from each source of the graph; batches also by its throughput hint.

The sources are the files `ir` (from its own converter) and `onnx`, or for int8 the `ir` quantised by nncf.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.contenders import Job, Loaded, Variants

# A quantised model computes the rest in either; bf16 is OpenVINO's own default where the processor has it.
_HINTS = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("bf16", "f32")}


def variants(job: Job) -> Variants:
    found: Variants = {}
    for source in ("ir", "onnx"):
        if source in job.files:
            for hint in _HINTS[job.precision]:
                for static in (False, True):
                    name = f"{source}, {hint}, {'static' if static else 'dynamic'} shape"
                    found[name] = functools.partial(_load, job, source, hint, static)
                if job.sizes[0] >= job.threads > 1:
                    name = f"{source}, {hint}, throughput hint, {job.threads} streams"
                    found[name] = functools.partial(_load_streams, job, source, hint)
    return found


def _load(job: Job, source: str, hint: str, static: bool) -> Loaded:
    import openvino

    core = openvino.Core()
    model = core.read_model(job.files[source])
    if static:
        tail = [3, 224, 224] if len(job.sizes) == 1 else []
        model.reshape({port.any_name: [*job.sizes, *tail] for port in model.inputs})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    names = [port.any_name for port in model.inputs]

    def feed(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: arrays[name] for name in names}

    def call(arrays: dict[str, Any]) -> Any:
        # Sharing, the fastest way in and out; the answer is copied before the next call.
        return request.infer(arrays, share_inputs=True, share_outputs=True)

    return Loaded(feed, call, lambda answer: answer[0].copy())


def _load_streams(job: Job, source: str, hint: str) -> Loaded:
    """A stream a thread, each with its share of the batch: how OpenVINO is faster with batches than by one request."""
    import numpy
    import openvino

    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(job.threads),
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    core = openvino.Core()
    model = core.compile_model(core.read_model(job.files[source]), "CPU", settings)
    requests = [model.create_infer_request() for _ in range(job.threads)]
    names = [port.any_name for port in model.inputs]

    def feed(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
        shares = {name: numpy.array_split(arrays[name], job.threads) for name in names}
        return [{name: share[number] for name, share in shares.items()} for number in range(job.threads)]

    def call(parts: list[dict[str, Any]]) -> Any:
        for request, part in zip(requests, parts, strict=True):
            request.start_async(part, share_inputs=True)
        for request in requests:
            request.wait()
        return [request.get_output_tensor(0).data for request in requests]

    return Loaded(feed, call, numpy.concatenate)
