"""What leaving padding out costs and saves: where the limits in exporter/backends/onednn/ragged.py come from.

Usage: python -m benchmarks.experiments.padding MODEL [--fp32|--bf16] [--always]

Exports a model twice, `--padding drop` and `--padding keep`, and times a call at several shapes and shares of real
tokens: interleaved rounds, medians in milliseconds, and their ratio. The answers are compared first. With `--always`
padding is left out of every batch, however small or full, to see where that stops to pay. Row lengths are seeded and
uniform.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import tables
from exporter import ExportRequest, export
from exporter.backends.onednn import ragged
from runtime import load
from runtime.session import placeholders

# Rows, longest, and the shortest that a row may be.
SHAPES = (
    *((8, 128, 128), (8, 128, 120), (8, 128, 100), (8, 128, 80), (8, 128, 12), (1, 128, 128), (2, 128, 64)),
    *((64, 32, 30), (64, 32, 20), (64, 32, 1), (32, 16, 14), (32, 16, 8), (32, 16, 1), (2, 16, 8), (4, 384, 40)),
)
ROUNDS = 9


def inputs_of(session: Any, lengths: list[int], size: int) -> dict[str, torch.Tensor]:
    inputs = placeholders(session.manifest, {"batch": len(lengths), "sequence": size})
    inputs["attention_mask"] = (torch.arange(size) < torch.tensor(lengths).unsqueeze(1)).long()
    return inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--fp32", dest="precision", action="store_const", const="fp32", default="bf16")
    parser.add_argument("--bf16", dest="precision", action="store_const", const="bf16")
    parser.add_argument("--always", action="store_true")
    options = parser.parse_args()
    if options.always:
        ragged.FULL, ragged.LEAST = 1.0, 0
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for padding in ("keep", "drop"):
            file = Path(folder) / f"{padding}.pt"
            random_weights = not Path(options.model).is_dir()
            export(
                ExportRequest(
                    options.model,
                    file,
                    precision=options.precision,
                    backend="onednn",
                    padding=padding,
                    verify="off",
                    random_weights=random_weights,
                    task="text-classification" if random_weights else "auto",
                )
            )
            sessions[padding] = load(file)
    print(f"{options.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}; median milliseconds")
    body = []
    chance = random.Random(0)
    for rows, size, least in SHAPES:
        lengths = [size, *(chance.randint(least, size) for _ in range(rows - 1))]
        inputs = inputs_of(sessions["keep"], lengths, size)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for number in range(ROUNDS + 2):
            answers = []
            for name, session in sessions.items():
                start = time.perf_counter()
                (answer,) = session(**inputs).values()
                if number >= 2:
                    times[name].append(1e3 * (time.perf_counter() - start))
                answers.append(answer)
            if number < 2:
                torch.testing.assert_close(answers[0], answers[1], rtol=0.05, atol=0.05)
        keep, drop = (statistics.median(times[name]) for name in ("keep", "drop"))
        share = sum(lengths) / rows / size
        body.append([f"{rows}x{size}", f"{share:.2f}", f"{keep:.2f}", f"{drop:.2f}", f"{drop / keep:.3f}"])
    print(tables.plain(["rows x longest", "real", "keep", "drop", "ratio"], body))


if __name__ == "__main__":
    main()
