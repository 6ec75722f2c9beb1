"""The files that the contenders of a row load, made if they are missing or older than their sources.

Each contender that can run on this machine gets a `Job`; for each other one, the report gives the reason, such as a
file that could not be made. Used by the parent process; it imports no framework.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import places
from benchmarks.harness.contenders import Job
from benchmarks.harness.rows import MODELS, Contender, Row, Settings
from exporter.config.request import BACKEND_CHOICES, PRECISION_CHOICES
from exporter.verification.subprocesses import module


class NotMadeError(Exception):
    """A file that a contender loads could not be made; the message is the reason."""


def prepare(model: str, threads: int) -> None:
    """Checkpoint, inputs, expected answers and calibration data; what exists stays.

    Raises:
        NotMadeError: that failed.
    """
    if not places.facts_of(model).exists():
        run(f"prepare-{model}", "main", ["benchmarks.harness.prepare", model], threads)


def job_of(row: Row, contender: Contender, settings: Settings) -> Job:
    """The job of a contender, its files made.

    Raises:
        NotMadeError: a file could not be made.
    """
    if not Path(places.PYTHON[contender.home]).exists():
        raise NotMadeError(f"its environment is missing: make .venv-{contender.home}/.installed")
    threads = settings.threads
    job = Job(
        contender=contender.name,
        module=contender.module,
        framework=contender.framework,
        model=row.model,
        shape=row.shape,
        precision=row.precision,
        threads=threads,
        inputs=str(places.inputs_of(row)),
        facts=json.loads(places.facts_of(row.model).read_text()),
    )
    if contender.module == "exported":
        return dataclasses.replace(job, files={"artifact": str(_exported(row, contender.name, settings))})
    if contender.module == "aot":
        package = places.artifact_of(f"{row.model}-{row.shape}", row.precision, "aot", "pt2")
        job = dataclasses.replace(job, files={"package": str(package)})
        if not is_fresh(package, [places.folder_of(row.model)]):
            arguments = ["benchmarks.harness.contenders.aot", json.dumps(dataclasses.asdict(job))]
            run(f"{row.file}-aot-build", "main", arguments, threads, [package])
        return job
    if contender.home == "peers":
        return dataclasses.replace(job, files=_converted(row, contender.name, threads))
    return job


def _converted(row: Row, contender: str, threads: int) -> dict[str, str]:
    """The peers' files of a row's model, by the names that their modules use."""
    of = functools.partial(places.artifact_of, row.model)
    fp32 = {
        "onnxruntime": {"onnx": of("fp32", "onnxruntime", "onnx")},
        "openvino": {"ir": of("fp32", "openvino", "xml"), "onnx": of("fp32", "exported", "onnx")},
    }[contender]
    int8 = {
        "onnxruntime": {"onnx": of("int8", "onnxruntime", "onnx")},
        "openvino": {"ir": of("int8", "openvino", "xml")},
    }[contender]
    if not all(is_fresh(path, [places.folder_of(row.model)]) for path in fp32.values()):
        run(f"{row.model}-convert", "main", ["benchmarks.harness.convert", row.model], threads, [*fp32.values()])
    if row.precision == "int8" and not all(is_fresh(path, list(fp32.values())) for path in int8.values()):
        run(f"{row.model}-quantise", "peers", ["benchmarks.harness.quantise", row.model], threads, [*int8.values()])
    return {name: str(path) for name, path in (int8 if row.precision == "int8" else fp32).items()}


def _exported(row: Row, contender: str, settings: Settings) -> Path:
    """The artifact, exported anew where the exporter or the runtime is newer than the last one."""
    if row.precision not in PRECISION_CHOICES:
        raise NotMadeError(f"this exporter has no {row.precision}")
    if contender != "tuned" and contender not in BACKEND_CHOICES:
        raise NotMadeError(f"this exporter has no backend {contender}")
    shapes = (row.shape,) if settings.tuned_for == "row" else MODELS[row.model].shapes
    name = f"{contender}-{row.shape}" if contender == "tuned" and settings.tuned_for == "row" else contender
    arguments = []
    if row.precision == "int8" and contender != "native":
        lines = places.calibration_of(row.model, "txt")
        arguments += [
            "--calibration",
            str(lines if lines.exists() else places.calibration_of(row.model, "safetensors")),
        ]
    if contender != "tuned":
        arguments += ["--backend", contender]
    else:
        arguments += ["--tune", "full", "--tune-shapes", ",".join(shapes)]
    return export(row, name, arguments, settings.threads)


def export(row: Row, name: str, options: Sequence[str], threads: int) -> Path:
    """The artifact of a row's model and precision, exported with these options; what is fresh stays.

    Raises:
        NotMadeError: `export-model` refused.
    """
    arguments = ["--task", MODELS[row.model].task, f"--{row.precision}", "--verify", "quick", *options]
    return export_model(row.model, places.artifact_of(row.model, row.precision, name), arguments, threads)


def export_model(model: str, path: Path, options: Sequence[str], threads: int) -> Path:
    """The artifact of a model's folder at a path of `places.artifact_of`; what is fresh stays.

    Raises:
        NotMadeError: `export-model` refused.
    """
    if is_fresh(path, [*exporter_sources(), places.folder_of(model)]):
        return path
    arguments = [str(places.folder_of(model)), *options, "-o", str(path), "--force"]
    run(f"{path.stem}-export", "main", ["exporter.cli", *arguments], threads)
    return path


def exporter_sources() -> list[Path]:
    """The files of this project that an artifact depends on."""
    return [file for package in ("exporter", "runtime") for file in (places.ROOT / package).rglob("*.py")]


def is_fresh(path: Path, sources: Sequence[Path]) -> bool:
    """Whether a file is there and no older than what it was made from."""
    return path.exists() and all(path.stat().st_mtime >= source.stat().st_mtime for source in sources)


def command(home: str, name: str) -> list[str]:
    """The command that runs a module with the interpreter of a contender's home; its arguments follow."""
    return module(name, flags=("-W", "ignore"), executable=places.PYTHON[home])


def run(log: str, home: str, arguments: Sequence[str], threads: int, made: Sequence[Path] = ()) -> None:
    """Run a module to its end; its output is the log. Of the files in `made`, no half stays if it fails or is ended.

    Raises:
        NotMadeError: with the last line of the log.
    """
    places.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    places.MODELS.mkdir(parents=True, exist_ok=True)
    path = log_of(log)
    start = time.monotonic()
    print(f"making: {log}", flush=True)
    whole = False
    try:
        with path.open("w") as output:
            done = subprocess.run(
                [*command(home, arguments[0]), *arguments[1:]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=places.environment(threads),
                cwd=places.ROOT,
                check=False,
            )
        whole = done.returncode == 0
    finally:
        if not whole:
            for file in made:
                file.unlink(missing_ok=True)
    if not whole:
        raise NotMadeError(last_line(path))
    print(f"made in {time.monotonic() - start:.0f} s: {log}", flush=True)


def log_of(name: str) -> Path:
    """Where a process writes what it prints."""
    places.LOGS.mkdir(parents=True, exist_ok=True)
    return places.LOGS / f"{name}.log"


def last_line(log: Path) -> str:
    """The reason that a process gave before it ended."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended without a word"
