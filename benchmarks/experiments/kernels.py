"""The native operators against PyTorch's own: where the figures in docs/decisions/native.md come from.

Usage: python -m benchmarks.experiments.kernels LIBRARY [THREADS]

LIBRARY is libexported_model_native.so, built as runtime/kernels/CMakeLists.txt says; EXPORTED_MODEL_KERNELS chooses
its level. Times attention on the views of a joined query-key-value against `scaled_dot_product_attention` (for the
ragged batch: padded, with a mask), and residual + layer norm against an addition and `layer_norm`, with THREADS (2):
interleaved rounds, medians in microseconds, and the ratio of the shortest times, which other processes disturb less.
The answers are compared first. What stands around the operators is left out.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.harness import tables

MODELS = {"MiniLM": (12, 32), "bert-base": (12, 64)}
SIZES = ((1, 32), (1, 128), (8, 128), (1, 384))
RAGGED = (128, 20, 35, 50, 64, 12, 90, 40)
ROUNDS, INNER = 31, 8

Call = Callable[[], torch.Tensor]
OPERATORS: Any = torch.ops.em_native


def measure(stock: Call, native: Call) -> tuple[list[float], list[float]]:
    """Microseconds per call of both, in turn."""
    times: dict[Call, list[float]] = {stock: [], native: []}
    for _ in range(ROUNDS):
        for call, found in times.items():
            call()
            start = time.perf_counter()
            for _ in range(INNER):
                call()
            found.append(1e6 * (time.perf_counter() - start) / INNER)
    return times[stock], times[native]


def split(joined: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value of [rows, tokens, 3, heads, width], each as [rows, heads, tokens, width]."""
    query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def attention(rows: int, tokens: int, heads: int, width: int, dtype: torch.dtype) -> tuple[Call, Call]:
    query, key, value = split(torch.randn(rows, tokens, 3, heads, width).to(dtype))
    scale = width**-0.5

    def stock() -> torch.Tensor:
        return functional.scaled_dot_product_attention(query, key, value, scale=scale)

    def native() -> Any:
        return OPERATORS.attention(query, key, value, None, None, scale, False, 0)

    torch.testing.assert_close(native(), stock(), rtol=2e-2, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    return stock, native


def ragged(heads: int, width: int, dtype: torch.dtype) -> tuple[Call, Call]:
    """Padded and masked against tokens one behind the other with their offsets."""
    rows, longest = len(RAGGED), max(RAGGED)
    joined = torch.randn(rows, longest, 3, heads, width).to(dtype)
    valid = torch.arange(longest) < torch.tensor(RAGGED)[:, None]
    mask = torch.zeros(rows, 1, 1, longest, dtype=dtype).masked_fill(~valid[:, None, None], torch.finfo(dtype).min)
    mask = mask.expand(rows, 1, longest, longest)
    query, key, value = split(joined)
    packed = split(joined[valid][None])
    offsets = torch.tensor((0, *RAGGED)).cumsum(0)
    scale = width**-0.5

    def stock() -> torch.Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)

    def native() -> Any:
        return OPERATORS.attention(*packed, offsets, None, scale, False, 0)

    expected = stock().transpose(1, 2)[valid]
    found = native().transpose(1, 2)[0]
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    return stock, native


def norm(tokens: int, size: int, dtype: torch.dtype) -> tuple[Call, Call]:
    x, residual = torch.randn(2, tokens, size).to(dtype)
    weight, bias = torch.randn(2, size).to(dtype)

    def stock() -> torch.Tensor:
        return functional.layer_norm(x + residual, (size,), weight, bias, 1e-12)

    def native() -> Any:
        return OPERATORS.add_layer_norm(x, residual, weight, bias, 1e-12)

    torch.testing.assert_close(native(), stock(), rtol=5e-2, atol=5e-2 if dtype == torch.bfloat16 else 1e-5)
    return stock, native


def main(library: str, threads: int) -> None:
    torch.ops.load_library(library)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    level = torch.ops.em_native.level()
    print(f"level {level}, {torch.get_num_threads()} threads, torch {torch.__version__}; median microseconds")
    for operation in ("attention", "norm"):
        body = []
        for dtype in (torch.float32, torch.bfloat16):
            for model, (heads, width) in MODELS.items():
                cases: dict[str, tuple[Call, Call]] = {}
                for rows, tokens in SIZES:
                    if operation == "attention":
                        cases[f"{rows}x{tokens}"] = attention(rows, tokens, heads, width, dtype)
                    else:
                        cases[f"{rows}x{tokens}"] = norm(rows * tokens, heads * width, dtype)
                cases["ragged"] = (
                    ragged(heads, width, dtype) if operation == "attention" else norm(sum(RAGGED), heads * width, dtype)
                )
                for size, (stock, native) in cases.items():
                    found = measure(stock, native)
                    theirs, ours = map(statistics.median, found)
                    row = [str(dtype).removeprefix("torch."), model, size, f"{theirs:.0f}", f"{ours:.0f}"]
                    body.append([*row, f"{theirs / ours:.2f}", f"{min(found[0]) / min(found[1]):.2f}"])
        print(operation)
        print(tables.plain(["type", "model", "size", "stock", "native", "stock / native", "shortest"], body))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with torch.no_grad():
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 2)
