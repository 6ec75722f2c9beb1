"""The floor: only the model's matrix products, in the precision of the row, with packed weights. It has no outputs.

A layer has four linears (query, key and value as one; attention's output; two of the feed-forward) and two attention
products; for images the linear of the patches comes first. Each layer has separate weights, so caches are as cold as
in the model. int8 linears take and return uint8; their attention products are in bf16. There is no bias, activation or
softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.harness.contenders import Job, Loaded, Variants
from benchmarks.harness.contenders.torch_feed import dtype_of

Linear = Callable[[], Any]


def variants(job: Job) -> Variants:
    return {"products": lambda: _load(job)}


def _load(job: Job) -> Loaded:
    torch.manual_seed(0)
    sizes = job.facts
    hidden, inner, heads = sizes["hidden"], sizes["inner"], sizes["heads"]
    batch = job.sizes[0]
    length = job.sizes[1] if len(job.sizes) > 1 else sizes["image_tokens"]
    dtype = torch.bfloat16 if job.precision == "int8" else dtype_of(job.precision)
    query = torch.randn(batch * heads, length, hidden // heads, dtype=dtype)
    scores = torch.randn(batch * heads, length, length, dtype=dtype)
    linear = _linear_int8 if job.precision == "int8" else _linear
    products: list[Linear] = []
    if sizes["patch_inputs"]:
        products.append(linear(batch * (length - 1), sizes["patch_inputs"], hidden, dtype))
    for _ in range(sizes["layers"]):
        products.append(linear(batch * length, hidden, 3 * hidden, dtype))
        products.append(lambda: torch.bmm(query, query.transpose(1, 2)))
        products.append(lambda: torch.bmm(scores, query))
        products.append(linear(batch * length, hidden, hidden, dtype))
        products.append(linear(batch * length, hidden, inner, dtype))
        products.append(linear(batch * length, inner, hidden, dtype))

    def call(_: Any) -> None:
        with torch.inference_mode():
            for product in products:
                product()

    return Loaded(lambda _: None, call, None)


def _linear(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> Linear:
    x = torch.randn(rows, inputs, dtype=dtype)
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(outputs, inputs, dtype=dtype), rows)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _linear_int8(rows: int, inputs: int, outputs: int, _: torch.dtype) -> Linear:
    x = torch.randint(0, 255, (rows, inputs), dtype=torch.uint8)
    weight = torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [rows, inputs])
    scales, zeros = torch.full((outputs,), 0.01), torch.zeros(outputs, dtype=torch.int64)

    def product() -> Any:
        return torch.ops.onednn.qlinear_pointwise(
            x, 0.02, 128, packed, scales, zeros, None, 1.0, 128, torch.uint8, "none", [], ""
        )

    return product
