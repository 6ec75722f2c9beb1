"""`python -m benchmarks.harness.prepare MODEL`: make what a model's rows need before any contender runs.

Writes to build/bench the checkpoint folder, its sizes, each row's inputs with the outputs of eager fp32, and the
calibration data in every form. Existing files are kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.numpy import save_file

from benchmarks.harness import inputs
from benchmarks.harness.models import INPUT_NAMES, facts, load_model, make_folder
from benchmarks.harness.places import calibration_of, facts_of, inputs_of
from benchmarks.harness.rows import MODELS, ROWS


def main(name: str) -> None:
    model = MODELS[name]
    facts_of(name).parent.mkdir(parents=True, exist_ok=True)
    make_folder(name).parent.mkdir(parents=True, exist_ok=True)
    lines = inputs.docstring_lines()
    rows = [row for row in ROWS if row.model == name and row.precision == "fp32" and not inputs_of(row).exists()]
    if rows:
        module = load_model(name)
    for row in rows:
        arrays: dict[str, Any] = {}
        for number, case in enumerate(inputs.row_inputs(name, row.sizes, lines)):
            arrays |= {f"{number}/{key}": value for key, value in case.items()}
            with torch.inference_mode():
                answer = module(*(torch.from_numpy(case[key]) for key in INPUT_NAMES[name]))
            arrays[f"{number}/answer"] = answer.numpy()
        save(inputs_of(row), arrays)
        print(f"{row.name}: {model.cases} cases answered by eager fp32")
    if not calibration_of(name, "npz").exists():
        cases = inputs.calibration(name, lines)
        if name == "minilm":
            # Real lines keep their lengths, so they go to the exporter as lines.
            calibration_of(name, "txt").write_text("\n".join(lines[: len(cases)]) + "\n")
        else:
            stacked = {key: numpy.concatenate([case[key] for case in cases]) for key in cases[0]}
            save_file(stacked, calibration_of(name, "safetensors"))
        flat = {f"{number}/{key}": value for number, case in enumerate(cases) for key, value in case.items()}
        save(calibration_of(name, "npz"), flat)
    if not facts_of(name).exists():
        facts_of(name).write_text(json.dumps(facts(name), indent=1) + "\n")


def save(path: Path, arrays: dict[str, Any]) -> None:
    """Write the file as a whole: a run that was ended leaves no half of one."""
    draft = path.with_name(f".{path.name}")
    numpy.savez(draft, **arrays)
    draft.rename(path)


if __name__ == "__main__":
    main(sys.argv[1])
