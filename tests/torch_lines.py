"""Run the round-trip tests in each release line of PyTorch, then load each line's artifacts in every other line.

Each line is given by its name and the Python of its environment: `before-2.0=PATH …`. Writes the tables in
docs/lines.md and prints them. The exit code is 1 if a test failed, a line is not what its name says, or an artifact
computed wrong outputs or was refused without need. `make test-lines` makes the environments and runs this.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.verification import subprocesses

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "lines"
PAGE = ROOT / "docs" / "lines.md"
TESTS = ["tests/test_round_trip.py", "tests/test_trace.py"]
VERSIONS = """
import importlib.metadata as metadata, json, platform
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({"python": platform.python_version()} | {name: version(name) for name in (
    "torch", "intel-extension-for-pytorch", "transformers", "numpy")}))
"""

HEAD = """# Three lines of PyTorch

The exporter and the runtime run before torch 2.0, beside IPEX, and after IPEX. Written by `make test-lines` on {date},
which installs the three environments of `requirements/`, runs the same round trips in each (tests/test_round_trip.py)
and then loads each line's plain artifacts in every other line.
"""
FOOT = """
A plain artifact is read by the torch minor release that wrote it and by newer ones: TorchScript promises that and not
the reverse. An IPEX artifact is read beside exactly its IPEX and the torch minor release that belongs to it; anywhere
else it is refused before torch touches the file.

The runtime needs Python 3.10 and torch 1.13 or newer: the first line above runs on both of these. The tests of a line
treat every warning as an error, so what newer releases of torch deprecate in TorchScript does not reach users.
"""


@dataclass(frozen=True)
class Line:
    """One environment."""

    name: str
    python: str
    versions: dict[str, str | None]

    @property
    def folder(self) -> Path:
        return BUILD / self.name

    @property
    def torch(self) -> tuple[int, ...]:
        return tuple(int(part) for part in str(self.versions["torch"]).split("+")[0].split(".")[:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lines", nargs="+", metavar="NAME=PYTHON")
    lines = [_line(*text.split("=", 1)) for text in parser.parse_args().lines]
    # Two lines at a time: a good part of each is one process that waits for another.
    with ThreadPoolExecutor(2) as pool:
        problems = [problem for found in pool.map(_tested, lines) for problem in found]
    text = [HEAD.format(date=datetime.date.today().isoformat()), *_environments(lines), "", *_round_trips(lines), ""]
    crossed, more = _crossed(lines)
    page = "\n".join([*text, *crossed, FOOT])
    PAGE.write_text(page)
    print(page)
    for problem in problems + more:
        print(f"PROBLEM: {problem}")
    return 1 if problems or more else 0


def _line(name: str, python: str) -> Line:
    asked = subprocess.run(subprocesses.python(VERSIONS, executable=python), capture_output=True, text=True, check=True)
    return Line(name, python, json.loads(asked.stdout))


def _tested(line: Line) -> list[str]:
    """Run the tests; what went wrong."""
    line.folder.mkdir(parents=True, exist_ok=True)
    (line.folder / "rows.json").unlink(missing_ok=True)
    done = subprocess.run(
        [*subprocesses.module("pytest", executable=line.python), "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        # OpenMP's threads sleep while they wait, or lines would keep each other from working.
        env=os.environ | {"LINE_FOLDER": str(line.folder), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"== {line.name}: torch {line.versions['torch']}\n{done.stdout}", flush=True)
    if done.returncode:
        return [f"tests failed in the line {line.name}"]
    wanted = {"before-2.0": (1, 13), "ipex": (2, 8), "after-ipex": (2, 13)}[line.name]
    return [] if line.torch >= wanted else [f"{line.name} has torch {line.versions['torch']}"]


def _environments(lines: list[Line]) -> list[str]:
    rows = ["| line | Python | torch | IPEX | transformers | NumPy |", "|---|---|---|---|---|---|"]
    for line in lines:
        v = line.versions
        ipex = v["intel-extension-for-pytorch"] or "none"
        rows.append(f"| {line.name} | {v['python']} | {v['torch']} | {ipex} | {v['transformers']} | {v['numpy']} |")
    return rows


def _round_trips(lines: list[Line]) -> list[str]:
    rows = [
        "Errors are the largest relative to eager fp32 of the original model, at shapes the exporter did not try.",
        "",
        "| line | model and task | precision | example inputs | backend | fusions | error | tolerance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        for row in _rows(line):
            fusions = ", ".join(f"{count} {kind}" for kind, count in row["fusions"].items()) or "none"
            rows.append(
                f"| {line.name} | {row['model']} {row['task']} | {row['precision']} | {row['form']} | {row['backend']} "
                f"| {fusions} | {row['max_error']:.1e} | {row['tolerance']:g} |"
            )
    return rows


def _rows(line: Line) -> list[dict[str, Any]]:
    path = line.folder / "rows.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def _crossed(lines: list[Line]) -> tuple[list[str], list[str]]:
    """Every artifact in every line: the table, and what is not as the format promises."""
    head = "| written by | " + " | ".join(f"loaded by {line.name}" for line in lines) + " |"
    table, problems = [head, "|---" * (len(lines) + 1) + "|"], []
    for writer in lines:
        for backend in sorted({row["backend"] for row in _rows(writer)}):
            # The plain ones that every line writes; of the IPEX ones, whose refusal has one reason, two.
            files = [row["file"] for row in _rows(writer) if row["backend"] == backend]
            files = [file for file in files if file.endswith("-plain.pt")] if backend == "plain" else files[:2]
            cells = []
            for reader in lines:
                outcomes = {_outcome(reader, writer.folder / file) for file in files}
                fits = reader.torch == writer.torch if backend == "ipex" else reader.torch >= writer.torch
                expected = {"right"} if fits else {"refused: TorchVersionError"}
                if outcomes != expected:
                    problems.append(f"{backend} of {writer.name} in {reader.name}: {outcomes}, expected {expected}")
                cells.append("; ".join(sorted(outcomes)))
            table.append(f"| {writer.name}, {backend} ({len(files)} files) | " + " | ".join(cells) + " |")
    return table, problems


CHECK = """
import sys
from runtime.errors import CheckFailedError, ExportedModelError
from runtime.verification.worker import check_golden
try:
    manifest, comparisons = check_golden(sys.argv[1])
    print("right" if all(comparison.within(manifest.tolerance) for comparison in comparisons) else "WRONG")
except CheckFailedError:
    print("WRONG")
except ExportedModelError as error:
    print(f"refused: {type(error).__name__}")
"""


def _outcome(reader: Line, path: Path) -> str:
    """All golden cases, in all orders, in a fresh process of the reader's line."""
    done = subprocess.run(
        [*subprocesses.python(CHECK, flags=("-W", "error"), executable=reader.python), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else f"DIED: {done.stderr.strip().splitlines()[-1:]}"


if __name__ == "__main__":
    print(f"{platform.machine()}, {os.cpu_count()} processors")
    sys.exit(main())
