"""Verification: compare the written file with the original model's outputs, in fresh processes.

A file that writes to its inputs or ends the process is refused here (VerificationError). Wrong outputs are reported in
the `Outcome`, so that the caller can exclude some shapes or refuse the file.

Nothing is compared in the exporting process: it has IPEX's package and the traced module in memory, which a consumer
has not.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporter.preprocessing.preprocessor import GIVEN, PreprocessingPlan
from exporter.verification.reference import VerificationCase
from exporter.verification.subprocesses import allowing, worker
from runtime.errors import VerificationError
from runtime.format.codec import to_json
from runtime.format.golden import Case, dump_cases, parse_cases
from runtime.format.manifest import Accuracy, Manifest, Tolerance, VerifiedCase
from runtime.host.native_library import LEVEL_VARIABLE, native_levels
from runtime.verification.compare import Comparison, worse

# Seconds after which a process that runs a file is ended: it hangs.
LONGEST_S = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What the fresh processes measured.

    `cases` has one entry per shape and output, the worst of all orders and thread counts. `failed` maps the cases
    outside the tolerance to what was wrong. `operators` are those of the executed graph, `orders` the orders of calls
    that were tried.
    """

    cases: tuple[VerifiedCase, ...]
    failed: dict[str, str]
    operators: dict[str, int]
    orders: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What was done and the largest errors, for people."""
        # The longest case may have been called once alone.
        calls = min((case.calls for case in self.cases if case.calls > 1), default=1)
        once = {case.case for case in self.cases if case.calls == 1 < calls}
        worst, rms = max(case.max_error for case in self.cases), max(case.rms_error for case in self.cases)
        shapes = len({(tuple(case.shape.items()), case.padded) for case in self.cases})
        text = f"{shapes} shapes, {calls} calls each or more{', the longest once' * bool(once)}: "
        text += f"{', '.join(self.orders)}; "
        text += f"largest max error {worst:.1e}, rms {rms:.1e}, relative to eager fp32"
        changed = [case for case in self.cases if case.argmax_mismatches is not None]
        if changed:
            winners = sum(case.argmax_mismatches or 0 for case in changed)
            text += f"; argmax differs in {winners} of {sum(case.rows for case in changed)} rows"
        return text


def verify(
    draft: Path,
    manifest: Manifest,
    cases: Sequence[VerificationCase],
    allow: Sequence[str] = (),
    preprocessing: PreprocessingPlan | None = None,
) -> Outcome:
    """Run every case on the draft, in every order of `runtime.verification.worker`, in fresh processes.

    `full` adds a process with another thread count. If the file needs this project's own operators, there is a process
    for each lower level of instructions that this processor has, since the file may run on one that has no more.
    `allow`, here and below, is the request's `allow_operators`. The first process also compares the method
    `preprocess`, if the file has it, with the folder's processor.

    Raises:
        VerificationError: the file writes to its inputs, gives outputs of another shape, preprocesses otherwise than
            the processor, or ends the process.
        OSError: the working files cannot be written.
    """
    threads = [torch.get_num_threads()]
    if manifest.verification == "full":
        threads.append(1 if threads[0] > 1 else 2)
    files = [*working_files(draft, manifest, [case.golden for case in cases]), *allowing(allow)]
    files += [text for case in cases if case.once for text in ("--once", case.golden.name)]
    comparisons: list[Comparison] = []
    orders: list[str] = []
    operators: dict[str, int] = {}
    levels = [] if manifest.requires.native is None else native_levels()[:-1]
    runs = [(count, "") for count in threads] + [(threads[0], level) for level in levels]
    for number, (count, level) in enumerate(runs):
        # The orders were tried in the first run; the others are about the threads and the level.
        first = ["--first-order-only"] if number else _given(preprocessing, manifest, draft.parent)
        variables = {LEVEL_VARIABLE: level} if level else {}
        report = run_worker(["verify", *files, "--threads", str(count), *first], draft.parent, **variables)
        operators = operators or report["operators"]
        for order, rows in report["comparisons"].items():
            about = [f"{count} threads"] * (len(threads) > 1) + [f"{level} alone"] * bool(level)
            orders.append(f"{order} ({', '.join(about)})" if about else order)
            comparisons += [Comparison(**row) for row in rows]
    return _judge(comparisons, manifest.tolerance, cases, operators, tuple(orders))


def _given(preprocessing: PreprocessingPlan | None, manifest: Manifest, folder: Path) -> list[str]:
    """Write what to preprocess into the folder, of sizes that the file takes; returns the arguments."""
    rules = manifest.preprocessing
    if preprocessing is None or rules is None:
        return []
    fitting = [
        case
        for case in preprocessing.cases
        if all(
            axis.minimum <= size and (axis.maximum is None or size <= axis.maximum)
            for axis, size in zip(rules.axes, case.inputs[GIVEN].shape, strict=True)
        )
    ]
    path = folder / "verify.given"
    path.write_bytes(dump_cases(fitting))
    return ["--preprocessed", str(path), "--preprocessing-tolerance", repr(preprocessing.tolerance)]


def confirm(sealed: Path, allow: Sequence[str] = ()) -> None:
    """Load the finished file as a consumer does, in another fresh process, and run its golden cases.

    Raises:
        VerificationError: if that fails.
    """
    arguments = ["confirm", "--artifact", str(sealed), "--threads", str(torch.get_num_threads()), *allowing(allow)]
    report = run_worker(arguments, sealed.parent)
    if report["wrong"]:
        raise VerificationError(
            f"the finished file is wrong at {', '.join(report['wrong'])}",
            "its golden outputs",
            "nothing was written; report the model",
        )


def held_out_accuracy(
    draft: Path, manifest: Manifest, cases: Sequence[Case], allow: Sequence[str] = ()
) -> tuple[Accuracy, ...]:
    """The file's accuracy on held-out samples, measured in a fresh process.

    Raises:
        VerificationError: the file fails on a sample, or supports none of them.
        OSError: if the working files cannot be written.
    """
    files = [*working_files(draft, manifest, cases), *allowing(allow)]
    report = run_worker(["accuracy", *files, "--threads", str(torch.get_num_threads())], draft.parent)
    if not report["accuracy"]:
        raise VerificationError("none of the held-out samples has a supported shape", "at least one that has")
    return tuple(Accuracy(**row) for row in report["accuracy"])


def file_outputs(
    draft: Path, manifest: Manifest, cases: Sequence[Case], allow: Sequence[str] = ()
) -> list[Mapping[str, torch.Tensor]]:
    """The file's outputs for cases, in order, from a fresh process.

    Raises:
        VerificationError: the file fails on a case, or does not support its shape.
        OSError: if the working files cannot be written.
    """
    written = draft.parent / "verify.outputs"
    files = [*working_files(draft, manifest, cases), *allowing(allow)]
    run_worker(["outputs", *files, "--threads", str(torch.get_num_threads()), "--outputs", str(written)], draft.parent)
    found = {case.name: case.outputs for case in parse_cases(written.read_bytes(), str(written))}
    return [found[case.name] for case in cases]


def file_likelihoods(draft: Path, manifest: Manifest, cases: Sequence[Case], allow: Sequence[str] = ()) -> list[float]:
    """How probable the file finds the cases' texts, from a fresh process (`runtime.verification.likelihood`).

    Raises:
        VerificationError: the file fails on a case, or does not support its shape.
        OSError: if the working files cannot be written.
    """
    files = [*working_files(draft, manifest, cases), *allowing(allow)]
    report = run_worker(["likelihood", *files, "--threads", str(torch.get_num_threads())], draft.parent)
    return [float(one) for one in report["likelihoods"]]


def refusal(outcome: Outcome, tolerance: Tolerance) -> VerificationError:
    """The error for an outcome with failures."""
    return VerificationError(
        f"the written file is wrong at {len(outcome.failed)} of the shapes tried: "
        + "; ".join(list(outcome.failed.values())[:3]),
        f"max error at most {tolerance.max_error:.2g} and rms error at most {tolerance.rms_error:.2g}",
    )


def _judge(
    comparisons: Sequence[Comparison],
    tolerance: Tolerance,
    cases: Sequence[VerificationCase],
    operators: dict[str, int],
    orders: tuple[str, ...],
) -> Outcome:
    verified, failed = [], {}
    for case in cases:
        for output in case.golden.outputs:
            mine = [
                comparison
                for comparison in comparisons
                if (comparison.case, comparison.output) == (case.golden.name, output)
            ]
            worst = functools.reduce(worse, mine)
            verified.append(
                VerifiedCase(
                    case=case.golden.name,
                    shape=case.shape,
                    padded=case.padded,
                    output=output,
                    calls=sum(comparison.calls for comparison in mine),
                    max_abs_error=worst.max_abs_error,
                    max_error=worst.max_error,
                    rms_error=worst.rms_error,
                    rows=worst.rows,
                    argmax_mismatches=worst.argmax_mismatches if output.endswith("logits") else None,
                )
            )
            if not worst.within(tolerance):
                failed[case.golden.name] = (
                    f"{case.name} {output}: max error {worst.max_error:.2e}, rms {worst.rms_error:.2e}"
                )
    return Outcome(tuple(verified), failed, operators, orders)


def working_files(draft: Path, manifest: Manifest, cases: Sequence[Case]) -> list[str]:
    """Write beside the draft what the fresh process reads; returns the arguments that name these files."""
    paths = {name: draft.parent / f"verify.{name}" for name in ("manifest", "cases")}
    paths["manifest"].write_text(to_json(manifest))
    paths["cases"].write_bytes(dump_cases(cases))
    return [*(text for name, path in paths.items() for text in (f"--{name}", str(path))), "--draft", str(draft)]


def run_worker(arguments: list[str], folder: Path, **variables: str) -> dict[str, Any]:
    """The report of one subcommand of the worker, which runs in a fresh process.

    Args:
        arguments: the subcommand and what it takes.
        folder: for its working files.
        variables: of the environment, beside those of this process.

    Raises:
        VerificationError: the process ended, or the file failed in it.
    """
    report = folder / "verify.report"
    report.unlink(missing_ok=True)
    done = _spawn([*arguments, "--report", str(report)], **variables)
    if done.returncode < 0:
        signal = -done.returncode
        raise VerificationError(f"the file ended a fresh process with signal {signal}", "outputs")
    if done.returncode > 0 or not report.exists():
        raise VerificationError(f"the fresh process failed: {_last_line(done)}", "outputs")
    value: dict[str, Any] = json.loads(report.read_text())
    if "error" in value:
        raise VerificationError(
            f"the written file failed in a fresh process: {value['error']}", "outputs like the model's"
        )
    return value


def _spawn(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [*worker("runtime.verification.worker"), *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | variables,
            check=False,
            timeout=LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        found = f"a fresh process was not done after {LONGEST_S:.0f} s"
        raise VerificationError(found, "outputs before that") from None


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return lines[-1]
