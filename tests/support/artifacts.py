"""Exports that are kept on disk, for the next run of these tests and for runs at the same time.

An export is made again if anything that it depends on changes: a source of the exporter or the runtime, a file of the
model or of the samples, the request, the release of a package, the processor, or the thread count. Exports of other
sources are removed.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import os
import pickle
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import torch

from exporter import ExportRequest, Report, export
from runtime.artifact import artifact_file
from runtime.host.requirements import detect

_PACKAGES = ("torch", "intel-extension-for-pytorch", "transformers", "tokenizers", "safetensors", "numpy")
# Variables that libraries read to choose their kernels.
_VARIABLES = ("ATEN_", "DNNL_", "IPEX_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "TORCH_")


def digest(parts: Iterable[object]) -> str:
    """Of values, in order; of a file or folder its content, with the names in it."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path) and part.is_dir():
            files = sorted(path for path in part.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
            part = digest(value for file in files for value in (file.relative_to(part).as_posix(), file))
        elif isinstance(part, Path):
            part = hashlib.sha256(part.read_bytes()).hexdigest()
        found.update(f"{part!r}\n".encode())
    return found.hexdigest()


class Artifacts:
    """The exports of one state of the sources, in a folder of their own below `folder`."""

    def __init__(self, folder: Path, sources: Iterable[Path]) -> None:
        self._folder = folder / digest(sources)[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        # Held until `close`: while it is, nobody removes the folder.
        self._in_use = (self._folder / "in-use").open("w")
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        for other in folder.iterdir():
            if other != self._folder and other.is_dir():
                _remove_unless_used(other)

    def close(self) -> None:
        """From here on the folder may be removed."""
        self._in_use.close()

    def export(self, request: ExportRequest) -> Report:
        """What `exporter.export` gives, which runs only where it has to."""
        name = self._name(request)
        with _locked(self._folder / f"{name}.lock"):
            kept, described = self._folder / f"{name}.pt", self._folder / f"{name}.report"
            if described.exists() and kept.exists():
                report: Report = pickle.loads(described.read_bytes())
                shutil.copyfile(kept, request.output)
                # A file that a test has changed, or that was cut, is no longer what was exported.
                if artifact_file.sha256(request.output) == report.sha256:
                    return dataclasses.replace(report, output=str(request.output))
                Path(request.output).unlink()
            report = export(request)
            described.unlink(missing_ok=True)
            shutil.copyfile(request.output, kept)
            described.write_bytes(pickle.dumps(report))
        return report

    def _name(self, request: ExportRequest) -> str:
        options = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
        del options["output"]
        # Files that the request names count by what is in them; the model's folder also gives the file its name.
        model = Path(options.pop("model"))
        values = [model.name, model, *(value for option in sorted(options.items()) for value in _contents(option))]
        versions = []
        for package in _PACKAGES:
            with suppress(importlib.metadata.PackageNotFoundError):
                versions.append((package, importlib.metadata.version(package)))
        variables = sorted(item for item in os.environ.items() if item[0].startswith(_VARIABLES))
        flags = sorted(detect().cpu_flags or ())
        return digest([*values, versions, variables, flags, sys.version, torch.get_num_threads()])[:32]


def _contents(option: tuple[str, object]) -> Iterator[object]:
    name, value = option
    yield name
    path = Path(value) if isinstance(value, str | Path) and value and Path(value).exists() else None
    yield path if path is not None else value


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """One process at a time; the others wait, and then find what it has made."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _remove_unless_used(folder: Path) -> None:
    with (folder / "in-use").open("w") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
