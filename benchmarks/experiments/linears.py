"""Which of PyTorch's kernels multiplies fastest in fp32, and whether packing for a number of rows helps.

Usage: python -m benchmarks.experiments.linears [minilm|bert-base]

Runs the four linears of every layer, each with weights of its own, so that caches are as cold as in a model. A way is
oneDNN's linear with weights packed for any number of rows (what the onednn backend writes), for 8 and for 32, MKL's
with weights packed for the very number, and PyTorch's own linear, which packs nothing. Interleaved rounds, medians in
milliseconds; answers are compared first. Activations, attention and norms are left out.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.harness import tables

SIZES = {"minilm": (6, 384, 1536), "bert-base": (12, 768, 3072)}
ROWS = (8, 32, 128, 384, 1024)
ROUNDS = 7

Linear = Callable[[torch.Tensor], torch.Tensor]


def ways(weight: torch.Tensor, rows: int) -> dict[str, Linear]:
    """The same linear in each way."""

    def packed(hint: int | None) -> Linear:
        order = torch.ops.mkldnn._reorder_linear_weight(weight.clone(), hint)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, order, None, "none", [], "")

    mkl = torch.ops.mkl._mkl_reorder_linear_weight(weight.clone(), rows)
    return {
        "oneDNN": packed(None),
        "oneDNN, for 8": packed(8),
        "oneDNN, for 32": packed(32),
        "MKL": lambda x: torch.ops.mkl._mkl_linear(x, mkl, weight, None, rows),
        "PyTorch's linear": lambda x: torch.nn.functional.linear(x, weight),
    }


def main(model: str) -> None:
    layers, hidden, inner = SIZES[model]
    shapes = ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner))
    weights = [torch.randn(shape) for _ in range(layers) for shape in shapes]
    print(f"{model}, fp32, {torch.get_num_threads()} threads, torch {torch.__version__}; median milliseconds")
    body = []
    for rows in ROWS:
        inputs = {width: torch.randn(rows, width) for width in (hidden, inner)}
        made = [ways(weight, rows) for weight in weights]
        for linear, weight in zip(made, weights, strict=True):
            expected = torch.nn.functional.linear(inputs[weight.shape[1]].double(), weight.double()).float()
            for way in linear.values():
                torch.testing.assert_close(way(inputs[weight.shape[1]]), expected, rtol=1e-3, atol=1e-3)
        times: dict[str, list[float]] = {name: [] for name in made[0]}
        for number in range(ROUNDS):
            turn = number % len(times)
            for name in [*times][turn:] + [*times][:turn]:
                for counted in (False, True):
                    start = time.perf_counter()
                    for linear, weight in zip(made, weights, strict=True):
                        linear[name](inputs[weight.shape[1]])
                    if counted:
                        times[name].append(1e3 * (time.perf_counter() - start))
        body.append([str(rows), *(f"{statistics.median(each):.1f}" for each in times.values())])
    print(tables.plain(["rows", *times], body))


if __name__ == "__main__":
    if sys.argv[1:] not in ([name] for name in SIZES):
        sys.exit(__doc__)
    with torch.no_grad():
        main(sys.argv[1])
