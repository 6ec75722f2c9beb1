"""Which form of attention is fastest at which sizes: where the limits in exporter/backends/onednn/attend.py come from.

Usage: python -m benchmarks.experiments.attention [fp32|bf16]

Times one layer's attention of bert-base (12 heads of 64) from the joined query, key and value, in each form, with a
mask: interleaved rounds, medians in microseconds. The answers are compared first. What stands around attention is left
out, so a difference here is about a tenth of itself in a whole model.
"""

import statistics
import sys
import time

import torch

from benchmarks.harness import tables
from exporter.backends.onednn.attend import attend_by_row, explicit_attention, sdpa

FORMS = {"one call": sdpa, "all rows at once": explicit_attention, "row by row": attend_by_row}
SIZES = ((1, 32), (8, 32), (1, 64), (1, 128), (8, 128), (32, 128), (1, 384), (4, 384), (1, 512))
HEADS, WIDTH, ROUNDS = 12, 64, 30


def main(precision: str) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    forms = {name: torch.jit.script(form) for name, form in FORMS.items()}
    print(f"{precision}, {torch.get_num_threads()} threads, torch {torch.__version__}; median microseconds")
    body = []
    for rows, tokens in SIZES:
        joined = torch.randn(rows, tokens, 3, HEADS, WIDTH, dtype=dtype)
        query, keys, values = joined.permute(2, 0, 3, 1, 4).unbind(0)
        mask = torch.zeros(rows, 1, tokens, tokens, dtype=dtype)
        inputs = (query, keys.transpose(2, 3), values, mask, 0.125)
        times: dict[str, list[float]] = {name: [] for name in FORMS}
        with torch.no_grad():
            answers = [form(*inputs) for form in forms.values() for _ in range(3)]
            for answer in answers:
                torch.testing.assert_close(answer, answers[0], rtol=3e-2, atol=3e-2)
            for _ in range(ROUNDS):
                for name, form in forms.items():
                    start = time.perf_counter()
                    form(*inputs)
                    times[name].append(time.perf_counter() - start)
        medians = [f"{1e6 * statistics.median(each):.0f}" for each in times.values()]
        size = rows * HEADS * tokens * tokens * dtype.itemsize // 1024
        body.append([f"{rows}x{tokens}", str(size), *medians])
    print(tables.plain(["rows x tokens", "scores, KiB", *FORMS], body))


if __name__ == "__main__":
    if sys.argv[1:] not in (["fp32"], ["bf16"]):
        sys.exit(__doc__)
    main(sys.argv[1])
