"""The files that the systems load: the samples, and the artifacts and converted models of `benchmarks.harness`.

They are made if they are missing or older than their sources. For a file that cannot be made, the report has the
reason.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import places
from benchmarks.harness.files import export, is_fresh, job_of, prepare, run
from benchmarks.harness.rows import CONTENDERS, Precision, Row, Settings
from benchmarks.loadgen import samples
from benchmarks.loadgen.systems import CORES, System

MODEL = "bert-base"
# LoadGen's logs and nothing else.
LOGS = places.ROOT / "build/loadgen"
_SETTINGS = Settings(1, 1, 1, CORES)


def make_samples() -> None:
    """The samples with their expected answers.

    Raises:
        NotMadeError: that failed.
    """
    prepare(MODEL, CORES)
    made = (samples.SAMPLES, samples.RAGGED_BATCH)
    sources = [places.folder_of(MODEL), *(Path(__file__).parent / name for name in ("samples.py", "prepare.py"))]
    if not all(is_fresh(path, sources) for path in made):
        run("loadgen-prepare", "main", ["benchmarks.loadgen.prepare"], CORES, made)


def files_of(system: System) -> dict[str, str]:
    """A system's files by the names that its engine uses.

    Raises:
        NotMadeError: one could not be made.
    """
    return job_of(Row(MODEL, "8x128", system.precision), CONTENDERS[system.name], _SETTINGS).files


def keeping_padding(backend: str, precision: Precision) -> Path:
    """The artifact of a backend that works on padded places too.

    Raises:
        NotMadeError: `export-model` refused.
    """
    options = ["--backend", backend, "--padding", "keep"]
    return export(Row(MODEL, "8x128", precision), f"{backend}-keep", options, CORES)
