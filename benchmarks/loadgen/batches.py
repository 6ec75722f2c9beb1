"""Two padded batches, one call each: the gain of dropping the padding if half is padding, and the cost if nothing is.

The calls are made as in `benchmarks.harness`: by the same contenders, with two threads, after their outputs were
compared with eager fp32. The entries are those of `benchmarks.harness.race`, in milliseconds per call.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.harness.contenders import Job
from benchmarks.harness.files import NotMadeError, job_of
from benchmarks.harness.race import race
from benchmarks.harness.rows import CONTENDERS, Precision, Row, Settings
from benchmarks.loadgen import samples
from benchmarks.loadgen.files import MODEL, keeping_padding
from benchmarks.loadgen.summary import DROPPING, KEEPING
from benchmarks.loadgen.systems import CORES, System


def batches(systems: list[System], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """`ragged`: lengths of `samples.RAGGED`, padded to the longest; `full`: 8x128 without padding."""
    settings = Settings(rounds, seconds, 3, CORES)
    full = {system.name: (_job(system, settings), system.home) for system in systems}
    if DROPPING in full:
        full[KEEPING] = _keeping(full[DROPPING][0], systems[0].precision), "main"
    ragged = {
        name: (dataclasses.replace(job, inputs=str(samples.RAGGED_BATCH)) if isinstance(job, Job) else job, home)
        for name, (job, home) in full.items()
    }
    return {"ragged": race("ragged batch", ragged, settings), "full": race("full batch", full, settings)}


def _job(system: System, settings: Settings) -> Job | str:
    try:
        return job_of(Row(MODEL, "8x128", system.precision), CONTENDERS[system.name], settings)
    except NotMadeError as error:
        return str(error)


def _keeping(dropping: Job | str, precision: Precision) -> Job | str:
    """The same job with the artifact that works on padding too."""
    if isinstance(dropping, str):
        return dropping
    try:
        artifact = keeping_padding(DROPPING, precision)
    except NotMadeError as error:
        return str(error)
    return dataclasses.replace(dropping, contender=KEEPING, files={"artifact": str(artifact)})
