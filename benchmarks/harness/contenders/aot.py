"""AOTInductor: a package compiled ahead of time for the row's shape, with freezing.

`python -m benchmarks.harness.contenders.aot JOB` makes the file `package`.
"""

from __future__ import annotations

import json
import sys

import numpy
import torch

from benchmarks.harness.contenders import Job, Loaded, Variants
from benchmarks.harness.contenders.torch_feed import dtype_of, loaded, tensors
from benchmarks.harness.models import INPUT_NAMES, load_model


def variants(job: Job) -> Variants:
    return {"package": lambda: _load(job)}


def _load(job: Job) -> Loaded:
    package = torch._inductor.aoti_load_package(job.files["package"])
    return loaded(job.model, package, dtype_of(job.precision))


def build(job: Job) -> None:
    """Write the package."""
    dtype = dtype_of(job.precision)
    module = load_model(job.model, "sdpa", dtype)
    with numpy.load(job.inputs) as arrays:
        example = tensors(job.model, {name: arrays[f"0/{name}"] for name in INPUT_NAMES[job.model]}, dtype)
    with torch.no_grad():
        exported = torch.export.export(module, example, strict=False)
        torch._inductor.aoti_compile_and_package(
            exported, package_path=job.files["package"], inductor_configs={"freezing": True}
        )


if __name__ == "__main__":
    build(Job(**json.loads(sys.argv[1])))
