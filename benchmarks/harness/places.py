"""The paths of interpreters, and of what `make bench` keeps between runs in build/bench. Needs no package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.harness.rows import Row

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build/bench"
MODELS = BUILD / "models"
INPUTS = BUILD / "inputs"
ARTIFACTS = BUILD / "artifacts"
RESULTS = BUILD / "results"
LOGS = BUILD / "logs"
OUTPUT = ROOT / "docs/benchmarks"

PEERS = ROOT / ".venv-peers"
SENTENCE = ROOT / ".venv-sentence"
ZEN = ROOT / ".venv-zen"
GENAI = ROOT / ".venv-genai"
# clean start: in `benchmarks.harness.files.command`
PYTHON = {
    "main": sys.executable,
    "peers": str(PEERS / "bin/python"),
    "sentence": str(SENTENCE / "bin/python"),
    "zen": str(ZEN / "bin/python"),
    "genai": str(GENAI / "bin/python"),
}


def folder_of(model: str) -> Path:
    """The checkpoint that every contender reads."""
    return MODELS / model


def inputs_of(row: Row) -> Path:
    """The row's inputs and the answers that eager fp32 gives: `0/input_ids`, …, `0/answer`, `1/…`."""
    return INPUTS / f"{row.model}_{row.shape}.npz"


def calibration_of(model: str, ending: str) -> Path:
    """What int8 is calibrated with: `npz` for the peers, `txt` or `safetensors` for `export-model`."""
    return INPUTS / f"{model}-calibration.{ending}"


def facts_of(model: str) -> Path:
    """Sizes of the model, as JSON: what the floor multiplies, and how many bytes the weights are."""
    return INPUTS / f"{model}.json"


def artifact_of(model: str, precision: str, contender: str, ending: str = "pt") -> Path:
    """A file that a contender loads."""
    return ARTIFACTS / f"{model}-{precision}-{contender}.{ending}"


def packages_of(folder: Path) -> str:
    """The site-packages folder of an environment, such as `PEERS`.

    Raises:
        FileNotFoundError: if that environment was not built.
    """
    for path in folder.glob("lib/python*/site-packages"):
        return str(path)
    raise FileNotFoundError(f"{folder} is missing: make {folder.name}/.installed")


def environment(threads: int) -> dict[str, str]:
    """The variables of every worker: as many threads as asked, no hub, one folder for what Inductor compiles."""
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_CACHE_DIR": str(BUILD / "inductor"),
        # Else Inductor keeps a process a core that waits for work.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
