"""`python -m benchmarks.loadgen.prepare`: write the samples with the outputs of eager fp32, once.

Reads the checkpoint folder of `benchmarks.harness.prepare`, and writes the files of `benchmarks.loadgen.samples` again
if that folder or this module is newer. Samples whose outputs are so similar that a mix-up would pass are refused.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from benchmarks.harness.models import INPUT_NAMES, load_model
from benchmarks.harness.prepare import save
from benchmarks.loadgen import samples
from benchmarks.loadgen.check import is_right, judge

MODEL = "bert-base"


def main() -> None:
    module = load_model(MODEL)
    rows = samples.samples()
    answers = [_answer(module, row) for row in rows]
    # The next sample's answer in place of each one's own.
    if is_right(judge([*answers[1:], answers[0]], answers), "bf16"):
        sys.exit("the samples' answers are too much alike: answers given to the wrong query would go unnoticed")
    ragged = samples.ragged()
    save(samples.SAMPLES, _flat(rows, answers))
    save(samples.RAGGED_BATCH, _flat([ragged], [_answer(module, ragged)]))
    print(f"{len(rows)} samples and a batch answered by eager fp32")


def _answer(module: torch.nn.Module, inputs: dict[str, Any]) -> Any:
    with torch.inference_mode():
        return module(*(torch.from_numpy(inputs[name]) for name in INPUT_NAMES[MODEL])).numpy()


def _flat(rows: list[dict[str, Any]], answers: list[Any]) -> dict[str, Any]:
    cases = [row | {"answer": answer} for row, answer in zip(rows, answers, strict=True)]
    return {f"{number}/{name}": array for number, case in enumerate(cases) for name, array in case.items()}


if __name__ == "__main__":
    main()
