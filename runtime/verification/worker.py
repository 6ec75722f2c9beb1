"""Run an artifact's cases in every order that a consumer might call them in.

In: a finished artifact (`check_golden`, behind `run-model check`); or, as a program, a draft:
`--draft FILE --manifest JSON --cases SAFETENSORS --report JSON --threads N [--brief]`. Out: parities; or the report,
which holds `parities` (a list an order), `operators` (of the executed graph), or `error`, one line. A draft has no
manifest yet, so it comes as a file of its own. `--sealed FILE` instead confirms a finished file, the report holding the
cases that are `wrong`; `--held-out` measures the cases' `accuracy` on the draft, and `--answers FILE` writes its
answers there, in the layout of `runtime.format.golden`. Judges nothing else: the caller compares with the tolerance.

What TorchScript and IPEX keep of their first calls depends on what these were, so the file is loaded anew for each
order:
- `batch-1-first`: smallest first, without warm-up, which is the hardest;
- `largest-first`;
- `two-threads`: after that, two threads call the same session at the same time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from runtime.artifact import artifact_file
from runtime.artifact.zip_reader import Archive
from runtime.errors import ExportedModelError, ManifestDamagedError
from runtime.format.codec import from_json
from runtime.format.golden import Case, dump_cases, parse_cases
from runtime.format.manifest import GOLDEN_FILE, Manifest
from runtime.session import Session, admit, load, open_module
from runtime.verification.accuracy import measure
from runtime.verification.compare import Parity, executed_operators, run_cases, worse


def run_orders(
    open_session: Callable[[], Session], cases: Sequence[Case], brief: bool = False
) -> tuple[dict[str, list[Parity]], dict[str, int]]:
    """Parities by order, and the executed graph's operators. `open_session` loads the file anew, without warm-up.

    `brief` stops after the first order, the hardest. A case on which the model fails counts as an infinite error.

    Raises:
        CheckFailedError: an input changed during a call, or an answer has another shape.
    """
    cases = sorted(cases, key=_size)
    parities: dict[str, list[Parity]] = {}
    session = open_session()
    parities["batch-1-first"] = run_cases(session, cases, renew=open_session)
    operators = executed_operators()
    if brief:
        return parities, operators
    session = open_session()
    parities["largest-first"] = run_cases(session, cases[::-1], renew=open_session)
    failed = {parity.case for found in parities.values() for parity in found if math.isinf(parity.max_error)}
    usable = [case for case in cases if case.name not in failed]
    if failed:
        # Warm, as the session of an artifact without failures is by now: consumers warm up before they share it.
        session = open_session()
        run_cases(session, usable[::-1])
    parities["two-threads"] = _two_threads(session, usable, open_session)
    return parities, operators


def check_golden(
    path: artifact_file.PathLike,
    threads: int | None = None,
    verify_key: artifact_file.PathLike | None = None,
    allow_operators: Sequence[str] = (),
) -> tuple[Manifest, list[Parity]]:
    """Run the cases stored in a finished artifact as the exporter did; the worst of all orders.

    Raises:
        ArtifactError, RequirementError: it cannot be loaded here, or holds no cases.
        CheckFailedError: as for `run_orders`.
    """
    # Opened once: whoever replaces the file meanwhile does not mix two artifacts.
    with artifact_file.opened(path) as archive:
        described = admit(archive, threads=threads, verify_key=verify_key)
        artifact_file.verify_parts(archive, described)
        parities, _ = run_orders(lambda: open_module(archive, described, allow_operators), _golden(archive))
    worst: dict[tuple[str, str], Parity] = {}
    for parity in (parity for found in parities.values() for parity in found):
        key = (parity.case, parity.output)
        worst[key] = worse(worst.get(key, parity), parity)
    return described, list(worst.values())


def confirm(path: artifact_file.PathLike, allow_operators: Sequence[str] = ()) -> list[str]:
    """Load a finished artifact as a consumer does, warm-up included, and call each case once.

    Returns the cases outside the tolerance. Raises what `check_golden` raises.
    """
    with artifact_file.opened(path) as archive:
        session, cases = load(archive, allow_operators=allow_operators), _golden(archive)
    parities = run_cases(session, cases, rounds=1)
    return [parity.case for parity in parities if not parity.within(session.manifest.tolerance)]


def _golden(archive: Archive) -> list[Case]:
    data = artifact_file.read_part(archive, GOLDEN_FILE)
    cases = parse_cases(data, archive.origin) if data is not None else []
    if not cases:
        name = f"{archive.origin} holds no {GOLDEN_FILE}"
        raise ManifestDamagedError(name, "cases to check", "export the model again")
    return cases


def main(argv: Sequence[str]) -> int:
    """Run the orders on a draft, or confirm a sealed file, and write the report.

    The exit code is 0 unless this program itself fails.
    """
    parser = argparse.ArgumentParser(prog="python -m runtime.verification.worker")
    for option in ("--draft", "--manifest", "--cases", "--sealed"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--held-out", action="store_true", help="measure the accuracy on cases of real data")
    parser.add_argument("--answers", type=Path, help="write the answers to the cases there, and compare nothing")
    parser.add_argument("--brief", action="store_true", help="the first order alone")
    parser.add_argument("--allow-operator", action="append", default=[], help="as for runtime.load")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        if options.sealed is not None:
            options.report.write_text(json.dumps({"wrong": confirm(options.sealed, options.allow_operator)}))
            return 0
        described = from_json(options.manifest.read_bytes(), str(options.draft))
        cases = parse_cases(options.cases.read_bytes(), str(options.cases))

        def open_draft() -> Session:
            return open_module(options.draft, described, options.allow_operator)

        if options.held_out or options.answers:
            session = open_draft()
            # The first calls run another graph than all later ones.
            session.warm_up()
        if options.answers:
            answered = [Case(case.name, {}, session(**case.inputs)) for case in cases]
            options.answers.write_bytes(dump_cases(answered))
            options.report.write_text(json.dumps({}))
            return 0
        if options.held_out:
            accuracy = [dataclasses.asdict(found) for found in measure(session, cases)]
            options.report.write_text(json.dumps({"accuracy": accuracy}))
            return 0
        parities, operators = run_orders(open_draft, cases, options.brief)
        rows = {order: [dataclasses.asdict(parity) for parity in found] for order, found in parities.items()}
        report: dict[str, object] = {"parities": rows, "operators": operators}
    except ExportedModelError as error:
        report = {"error": str(error)[:600]}
    options.report.write_text(json.dumps(report))
    return 0


def _size(case: Case) -> tuple[int, int]:
    """Batch first, then elements: a batch of 1 is where most goes wrong."""
    first = next(iter(case.inputs.values()))
    return first.shape[0], first.numel()


def _two_threads(session: Session, cases: Sequence[Case], open_session: Callable[[], Session]) -> list[Parity]:
    """Both threads' parities: one goes through the cases forwards, the other backwards."""
    found: list[Parity] = []
    failures: list[ExportedModelError] = []

    def work(ordered: Sequence[Case]) -> None:
        try:
            found.extend(run_cases(session, ordered, rounds=1, renew=open_session))
        except ExportedModelError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(ordered,)) for ordered in (cases, cases[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
