"""ONNX Runtime, with the file `onnx`: optimised by its transformers optimiser, and quantised for int8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.contenders import Job, Loaded, Variants


def variants(job: Job) -> Variants:
    return {"optimised graph": lambda: _load(job)}


def _load(job: Job) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(job.files["onnx"], options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in session.get_inputs()]

    def feed(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: arrays[name] for name in names}

    return Loaded(feed, lambda arrays: session.run(None, arrays), lambda answers: answers[0])
