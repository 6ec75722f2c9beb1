"""The gate: the written file against the original model's answers, in fresh processes.

In: the draft, its manifest, the points with their expected answers. Out: `Outcome`, the errors measured. Refuses
(VerificationError) a file that writes to its inputs or on which a process dies; wrong answers are in the outcome, for
the pipeline to narrow the artifact or refuse it.

Nothing is compared in the exporting process: it has IPEX's package and the traced module in memory, and a
consumer has neither.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporter.verification.reference import Point
from exporter.verification.subprocesses import allowing, worker
from runtime.errors import VerificationError
from runtime.format.codec import to_json
from runtime.format.golden import Case, dump_cases, parse_cases
from runtime.format.manifest import Accuracy, Manifest, Tolerance, VerifiedCase
from runtime.verification.compare import Comparison, worse


@dataclass(frozen=True)
class Outcome:
    """What the fresh processes saw.

    `points` has an entry a shape and output, the worst of all orders and threads; `failed` the cases outside the
    tolerance with what was wrong; `operators` those of the executed graph; `orders` what was tried.
    """

    points: tuple[VerifiedCase, ...]
    failed: dict[str, str]
    operators: dict[str, int]
    orders: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What was done and the largest errors, for people."""
        calls = min(point.calls for point in self.points)
        worst, rms = max(point.max_error for point in self.points), max(point.rms_error for point in self.points)
        shapes = len({(tuple(point.shape.items()), point.padded) for point in self.points})
        text = f"{shapes} shapes, {calls} calls each or more: {', '.join(self.orders)}; "
        text += f"largest max error {worst:.1e}, rms {rms:.1e}, relative to eager fp32"
        changed = [point for point in self.points if point.argmax_mismatches is not None]
        if changed:
            winners = sum(point.argmax_mismatches or 0 for point in changed)
            text += f"; winner changed in {winners} of {sum(point.rows for point in changed)} rows"
        return text


def verify(draft: Path, manifest: Manifest, points: Sequence[Point], allow: Sequence[str] = ()) -> Outcome:
    """Run every point on the draft, in every order of `runtime.verification.worker`, in fresh processes.

    `full` adds a process with another thread count. `allow`, here and below, are the request's `allow_operators`.

    Raises:
        VerificationError: the file writes to its inputs, gives answers of another shape, or kills the process.
        OSError: if the working files cannot be written.
    """
    threads = [torch.get_num_threads()]
    if manifest.verification == "full":
        threads.append(1 if threads[0] > 1 else 2)
    files = [*_working_files(draft, manifest, [point.case for point in points]), *allowing(allow)]
    parities: list[Comparison] = []
    orders: list[str] = []
    operators: dict[str, int] = {}
    for number, count in enumerate(threads):
        # What the order does was seen with the first thread count; the second looks at the threads.
        first = ["--first-order-only"] if number else []
        report = _run(["verify", *files, "--threads", str(count), *first], draft.parent)
        operators = operators or report["operators"]
        for order, rows in report["comparisons"].items():
            orders.append(f"{order} ({count} threads)" if len(threads) > 1 else order)
            parities += [Comparison(**row) for row in rows]
    return _judge(parities, manifest.tolerance, points, operators, tuple(orders))


def confirm(sealed: Path, allow: Sequence[str] = ()) -> None:
    """Load the finished file as a consumer does, in another fresh process, and run its golden cases.

    Raises:
        VerificationError: if that fails.
    """
    arguments = ["confirm", "--artifact", str(sealed), "--threads", str(torch.get_num_threads()), *allowing(allow)]
    report = _run(arguments, sealed.parent)
    if report["wrong"]:
        raise VerificationError(
            f"the finished file is wrong at {', '.join(report['wrong'])}",
            "its golden answers",
            "nothing was written; report the model",
        )


def held_out_accuracy(
    draft: Path, manifest: Manifest, cases: Sequence[Case], allow: Sequence[str] = ()
) -> tuple[Accuracy, ...]:
    """The file's accuracy on held-out samples, measured in a fresh process; nothing is judged.

    Raises:
        VerificationError: the file fails on a sample, or admits none.
        OSError: if the working files cannot be written.
    """
    files = [*_working_files(draft, manifest, cases), *allowing(allow)]
    report = _run(["accuracy", *files, "--threads", str(torch.get_num_threads())], draft.parent)
    if not report["accuracy"]:
        raise VerificationError("the range that is right holds none of the held-out samples", "some")
    return tuple(Accuracy(**row) for row in report["accuracy"])


def answers(
    draft: Path, manifest: Manifest, cases: Sequence[Case], allow: Sequence[str] = ()
) -> list[Mapping[str, torch.Tensor]]:
    """The file's answers to cases, in order, from a fresh process; nothing is judged.

    Raises:
        VerificationError: the file fails on a case, or does not admit it.
        OSError: if the working files cannot be written.
    """
    written = draft.parent / "verify.outputs"
    files = [*_working_files(draft, manifest, cases), *allowing(allow)]
    _run(["outputs", *files, "--threads", str(torch.get_num_threads()), "--outputs", str(written)], draft.parent)
    found = {case.name: case.outputs for case in parse_cases(written.read_bytes(), str(written))}
    return [found[case.name] for case in cases]


def refusal(outcome: Outcome, tolerance: Tolerance) -> VerificationError:
    """The error for an outcome with failures that nothing can be saved of."""
    return VerificationError(
        f"the written file is wrong at {len(outcome.failed)} of the shapes tried: "
        + "; ".join(list(outcome.failed.values())[:3]),
        f"max error at most {tolerance.max_error:.2g} and rms error at most {tolerance.rms_error:.2g}",
    )


def _judge(
    parities: Sequence[Comparison],
    tolerance: Tolerance,
    points: Sequence[Point],
    operators: dict[str, int],
    orders: tuple[str, ...],
) -> Outcome:
    verified, failed = [], {}
    for point in points:
        for output in point.case.outputs:
            mine = [parity for parity in parities if (parity.case, parity.output) == (point.case.name, output)]
            worst = functools.reduce(worse, mine)
            verified.append(
                VerifiedCase(
                    case=point.case.name,
                    shape=point.shape,
                    padded=point.padded,
                    output=output,
                    calls=sum(parity.calls for parity in mine),
                    max_abs_error=worst.max_abs_error,
                    max_error=worst.max_error,
                    rms_error=worst.rms_error,
                    rows=worst.rows,
                    argmax_mismatches=worst.argmax_mismatches if output.endswith("logits") else None,
                )
            )
            if not worst.within(tolerance):
                failed[point.case.name] = (
                    f"{point.name} {output}: max error {worst.max_error:.2e}, rms {worst.rms_error:.2e}"
                )
    return Outcome(tuple(verified), failed, operators, orders)


def _working_files(draft: Path, manifest: Manifest, cases: Sequence[Case]) -> list[str]:
    """Write what the fresh process reads beside the draft; the arguments that name it."""
    paths = {name: draft.parent / f"verify.{name}" for name in ("manifest", "cases")}
    paths["manifest"].write_text(to_json(manifest))
    paths["cases"].write_bytes(dump_cases(cases))
    return [*(text for name, path in paths.items() for text in (f"--{name}", str(path))), "--draft", str(draft)]


def _run(arguments: list[str], folder: Path) -> dict[str, Any]:
    report = folder / "verify.report"
    report.unlink(missing_ok=True)
    done = _spawn([*arguments, "--report", str(report)])
    if done.returncode < 0:
        signal = -done.returncode
        raise VerificationError(f"a fresh process died of signal {signal} running the file", "answers")
    if done.returncode > 0 or not report.exists():
        raise VerificationError(f"the fresh process failed: {_last_line(done)}", "answers")
    value: dict[str, Any] = json.loads(report.read_text())
    if "error" in value:
        raise VerificationError(
            f"the written file failed in a fresh process: {value['error']}", "answers like the model's"
        )
    return value


def _spawn(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*worker("runtime.verification.worker"), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return lines[-1]
