"""The gate: eager fp32 of the original model against the written file, in a fresh process.

In: the adapter around the untouched model, a TracePlan; then the draft. Out: cases with the expected answers; then
`Outcome`, the errors measured. Refuses (VerificationError) a file whose answers are off, that writes to its
inputs, or on which a process dies.

Nothing is compared in the exporting process: it has IPEX's package and the traced module in memory, and a
consumer has neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import runtime
from exporter.inputs import make_inputs
from exporter.plan import TracePlan
from runtime.check import Parity
from runtime.errors import VerificationError
from runtime.golden import Case, dump_cases
from runtime.manifest import Manifest, VerifiedPoint, to_json

# Modules that the fresh process must do without, as a worker does. `None` makes their import fail.
_ABSENT = ("transformers", "click", "intel_extension_for_pytorch", "exporter")
_WORKER = (
    f"import sys; sys.modules.update(dict.fromkeys({_ABSENT!r})); "
    "from runtime.{} import main; sys.exit(main(sys.argv[1:]))"
)


@dataclass(frozen=True)
class Point:
    """One shape to verify, and whether its case is stored in the artifact."""

    case: Case
    shape: dict[str, int]
    padded: bool
    golden: bool

    @property
    def name(self) -> str:
        """The shape, for people."""
        return self.case.name.partition("-")[2]


@dataclass(frozen=True)
class Outcome:
    """What the fresh process saw: an entry a shape and output, and the executed graph's operators."""

    points: tuple[VerifiedPoint, ...]
    operators: dict[str, int]

    @property
    def calls(self) -> int:
        """Calls made at each shape."""
        return min(point.calls for point in self.points)

    @property
    def summary(self) -> str:
        """The largest errors, for people."""
        worst, rms = max(point.max_error for point in self.points), max(point.rms_error for point in self.points)
        return f"largest max error {worst:.1e}, rms {rms:.1e}, relative to eager fp32"


def reference_points(adapter: torch.nn.Module, plan: TracePlan, outputs: Sequence[str]) -> list[Point]:
    """Shapes, inputs and the answers of the original model: run this before any backend touches it.

    Batch 1 comes first: what a graph wrongly keeps of its first call then shows in the later ones.
    """
    points: list[Point] = []
    for seed, (batch, lengths, golden) in enumerate(_shapes(plan)):
        sequence = max(lengths)
        padded = min(lengths) < sequence
        inputs = make_inputs(plan, batch, sequence, lengths, seed=seed + 1)
        # Not inference mode: tensors that a model caches (rotary tables) would then refuse the tracer.
        with torch.no_grad():
            answers = adapter(**inputs.as_dict())
        # A digit in front keeps the order: safetensors sorts by name.
        name = f"{len(points)}-{batch}x{sequence}{'-padded' if padded else ''}"
        # Clones: outputs may be views of larger tensors.
        named = {key: value.detach().clone() for key, value in zip(outputs, answers, strict=True)}
        points.append(
            Point(Case(name, inputs.as_dict(), named), {"batch": batch, "sequence": sequence}, padded, golden)
        )
    return points


def verify(draft: Path, manifest: Manifest, points: Sequence[Point]) -> Outcome:
    """Run every point on the draft, three calls each, in a fresh process.

    Raises:
        VerificationError: an answer outside the manifest's tolerance, or no answer.
        OSError: if the working files cannot be written.
    """
    folder = draft.parent
    paths = {name: folder / f"verify.{name}" for name in ("manifest", "cases", "report")}
    paths["manifest"].write_text(to_json(manifest))
    paths["cases"].write_bytes(dump_cases([point.case for point in points]))
    arguments = ["--draft", str(draft), *(text for name, path in paths.items() for text in (f"--{name}", str(path)))]
    report = _run("check", arguments, paths["report"])
    if "error" in report:
        raise VerificationError(
            f"the written file failed in a fresh process: {report['error']}", "answers like the model's", _REMEDY
        )
    parities = [Parity(**entry) for entry in report["parities"]]
    for parity in parities:
        if not parity.within(manifest.tolerance):
            bound = manifest.tolerance
            raise VerificationError(
                f"the written file is wrong at {parity.case}: output {parity.output} has max error "
                f"{parity.max_error:.2e} and rms error {parity.rms_error:.2e}",
                f"at most {bound.max_error:g} and {bound.rms_error:g}",
                _REMEDY,
            )
    by_name = {point.case.name: point for point in points}
    return Outcome(
        tuple(
            VerifiedPoint(
                by_name[parity.case].shape,
                by_name[parity.case].padded,
                parity.output,
                parity.calls,
                parity.max_abs_error,
                parity.max_error,
                parity.rms_error,
            )
            for parity in parities
        ),
        report["operators"],
    )


def confirm(sealed: Path) -> None:
    """Load the finished file as a consumer does, in another fresh process, and run its golden cases.

    Raises:
        VerificationError: if that fails.
    """
    done = _spawn("cli", ["check", str(sealed)])
    if done.returncode != 0:
        raise VerificationError(
            f"the finished file failed its own check: {_last_line(done)}", "golden answers", _REMEDY
        )


_REMEDY = "nothing was written; try --backend plain, --fp32, or report the model"


def _shapes(plan: TracePlan) -> list[tuple[int, list[int], bool]]:
    """Batch, row lengths, golden: short and unpadded, odd and padded, the example's own, the longest."""
    odd, short = min(13, plan.longest), min(8, plan.longest)
    candidates = [
        (1, [short], True),
        (3, [odd, max(1, odd // 2), 1], True),
        (plan.batch, [plan.sequence] * plan.batch, False),
        (plan.batch, [plan.sequence, *([max(1, plan.sequence // 3)] * (plan.batch - 1))], False),
        (1, [plan.longest], False),
    ]
    if not any(spec.name == "attention_mask" for spec in plan.inputs):
        # Without a mask there is no padding: every row is as long as the longest.
        candidates = [(batch, [max(lengths)] * batch, golden) for batch, lengths, golden in candidates]
    unique = {(batch, tuple(lengths)): (batch, lengths, golden) for batch, lengths, golden in reversed(candidates)}
    return list(reversed(unique.values()))


def _run(module: str, arguments: list[str], report: Path) -> dict[str, Any]:
    done = _spawn(module, arguments)
    if done.returncode < 0:
        raise VerificationError(
            f"the fresh process died of signal {-done.returncode} while running the file", "answers", _REMEDY
        )
    if done.returncode > 0 or not report.exists():
        raise VerificationError(f"the fresh process failed: {_last_line(done)}", "answers", _REMEDY)
    value: dict[str, Any] = json.loads(report.read_text())
    return value


def _spawn(module: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    root = str(Path(runtime.__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return subprocess.run(
        [sys.executable, "-c", _WORKER.format(module), *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return lines[-1]
