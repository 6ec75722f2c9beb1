"""Run an artifact's verification cases in a fresh process, in every order that a consumer might call them in.

As a program it has six subcommands, each of which writes a report in JSON: `verify`, `generation`, `outputs`,
`likelihood` and `accuracy` run a draft, whose manifest is still a file of its own; `confirm` runs a finished file. The
report holds `{"error": text}` if the file fails. `confirm` reports what is outside the tolerance, the others what was
measured; `verify` stops after the first order if that was wrong. `check_golden` tries all orders for `run-model check`.

What TorchScript and IPEX keep of their first calls depends on the inputs of these, so the file is loaded anew for each
order:
- `batch-1-first`: smallest first and without warm-up, which is the hardest order;
- `largest-first`;
- `two-threads`: after that, two threads call the same session at the same time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from runtime.artifact import artifact_file
from runtime.artifact.zip_reader import Archive
from runtime.errors import ExportedModelError, ManifestDamagedError
from runtime.format.codec import from_json
from runtime.format.golden import Case, dump_cases, parse_cases
from runtime.format.manifest import GOLDEN_FILE, Manifest, Tolerance
from runtime.session import Session, admit, load, open_module
from runtime.verification.accuracy import measure
from runtime.verification.compare import Comparison, check_preprocessing, executed_operators, run_cases, worse
from runtime.verification.generation import check_generation, decode_stored
from runtime.verification.likelihood import likelihoods
from runtime.verification.two_threads import in_two_threads

# Numbers of inputs: three images of 224x224 are fewer.
LARGE = 2**19


def run_orders(
    open_session: Callable[[], Session],
    cases: Sequence[Case],
    first_order_only: bool = False,
    once: Collection[str] = (),
    tolerance: Tolerance | None = None,
) -> tuple[dict[str, list[Comparison]], dict[str, int]]:
    """Comparisons by order, and the executed graph's operators. `open_session` loads the file anew, without warm-up.

    `first_order_only` stops after the first, which is the hardest; an error beyond `tolerance`, if it is given, stops
    after the first round: what is wrong is not shipped as it is. `once` names cases that are called once, after the
    first order. Cases of much data are called once per order (`_large`). A case on which the model fails counts as an
    infinite error.

    Raises:
        CheckFailedError: an input changed during a call, or an output has another shape than expected.
    """
    longest = [case for case in cases if case.name in once]
    cases = sorted((case for case in cases if case.name not in once), key=_size)
    comparisons: dict[str, list[Comparison]] = {}
    session = open_session()
    large = _large(cases)
    comparisons["batch-1-first"] = run_cases(session, cases, reopen=open_session, once=large, tolerance=tolerance)
    operators = executed_operators(session)
    comparisons["batch-1-first"] += run_cases(session, longest, rounds=1, reopen=open_session)
    wrong = tolerance is not None and not all(one.within(tolerance) for one in comparisons["batch-1-first"])
    if first_order_only or wrong:
        return comparisons, operators
    session = open_session()
    comparisons["largest-first"] = run_cases(session, cases[::-1], reopen=open_session, once=large)
    failed = {
        comparison.case for found in comparisons.values() for comparison in found if math.isinf(comparison.max_error)
    }
    usable = [case for case in cases if case.name not in failed]
    if failed:
        # Warmed up, as the session of an artifact without failures is now: consumers warm up before they share it.
        session = open_session()
        run_cases(session, usable[::-1], once=large)
    comparisons["two-threads"] = _run_two_threads(session, usable, large, open_session)
    return comparisons, operators


def check_golden(
    path: artifact_file.PathLike,
    threads: int | None = None,
    verify_key: artifact_file.PathLike | None = None,
    allow_operators: Sequence[str] = (),
) -> tuple[Manifest, list[Comparison]]:
    """Run the cases stored in a finished artifact as the exporter did; return the largest errors of all orders.

    Raises:
        ArtifactError, RequirementError: it cannot be loaded on this machine, or holds no cases.
        CheckFailedError: as for `run_orders`.
    """
    # Opened once: if the file is replaced meanwhile, two artifacts do not get mixed.
    with artifact_file.open_archive(path) as archive:
        manifest = admit(archive, threads=threads, verify_key=verify_key)
        artifact_file.verify_parts(archive, manifest)
        cases = _stored_cases(archive)
        comparisons, _ = run_orders(lambda: open_module(archive, manifest, allow_operators), cases)
        comparisons["in-pieces"] = decode_stored(open_module(archive, manifest, allow_operators), cases)
    worst: dict[tuple[str, str], Comparison] = {}
    for comparison in (comparison for found in comparisons.values() for comparison in found):
        key = (comparison.case, comparison.output)
        worst[key] = worse(worst.get(key, comparison), comparison)
    return manifest, list(worst.values())


def confirm(path: artifact_file.PathLike, allow_operators: Sequence[str] = ()) -> list[str]:
    """Load a finished artifact as a consumer does, warm-up included, and call each case once.

    Returns the cases outside the tolerance. Raises what `check_golden` raises.
    """
    with artifact_file.open_archive(path) as archive:
        session, cases = load(archive, allow_operators=allow_operators), _stored_cases(archive)
    comparisons = run_cases(session, cases, rounds=1)
    return [comparison.case for comparison in comparisons if not comparison.within(session.manifest.tolerance)]


def _stored_cases(archive: Archive) -> list[Case]:
    data = artifact_file.read_part(archive, GOLDEN_FILE)
    cases = parse_cases(data, archive.origin) if data is not None else []
    if not cases:
        raise ManifestDamagedError(
            f"{archive.origin} holds no {GOLDEN_FILE}", "cases to check", "export the model again"
        )
    return cases


def main(argv: Sequence[str]) -> int:
    """Run one subcommand and write its report. The exit code is 0 unless this program itself fails."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        report: dict[str, Any] = options.run(options)
    except ExportedModelError as error:
        report = {"error": str(error)[:600]}
    options.report.write_text(json.dumps(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--report", type=Path, required=True, help="where the report is written")
    every.add_argument("--threads", type=int, required=True, help="torch's thread count")
    every.add_argument("--allow-operator", action="append", default=[], help="as for runtime.load")
    draft = argparse.ArgumentParser(add_help=False, parents=[every])
    for option in ("--draft", "--manifest", "--cases"):
        draft.add_argument(option, type=Path, required=True)

    parser = argparse.ArgumentParser(prog="python -m runtime.verification.worker")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser("verify", parents=[draft], help="run the cases in every order until one is wrong")
    verify.add_argument("--first-order-only", action="store_true", help="stop after batch-1-first, the hardest order")
    verify.add_argument("--once", action="append", default=[], help="a case to call once, in the first order alone")
    verify.add_argument("--preprocessed", type=Path, help="cases for the method preprocess")
    verify.add_argument("--preprocessing-tolerance", type=float, default=0.0, help="how far its results may be off")
    verify.set_defaults(run=_verify)
    outputs = commands.add_parser("outputs", parents=[draft], help="write the outputs for the cases to a file")
    outputs.add_argument("--outputs", type=Path, required=True, help="the file, in the layout of runtime.format.golden")
    outputs.set_defaults(run=_outputs)
    likelihood = commands.add_parser("likelihood", parents=[draft], help="report how probable the cases' texts are")
    likelihood.set_defaults(run=_likelihood)
    accuracy = commands.add_parser("accuracy", parents=[draft], help="measure the accuracy on held-out samples")
    accuracy.set_defaults(run=_accuracy)
    generation = commands.add_parser("generation", parents=[draft], help="run the cases with the method decode")
    generation.set_defaults(run=_generation)
    confirm = commands.add_parser("confirm", parents=[every], help="report the stored cases outside the tolerance")
    confirm.add_argument("--artifact", type=Path, required=True)
    confirm.set_defaults(run=_confirm)
    return parser


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    tolerance = from_json(options.manifest.read_bytes(), str(options.draft)).tolerance
    if options.preprocessed is not None:
        given = parse_cases(options.preprocessed.read_bytes(), str(options.preprocessed))
        check_preprocessing(_draft(options)(), given, options.preprocessing_tolerance)
    comparisons, operators = run_orders(
        _draft(options), _cases(options), options.first_order_only, options.once, tolerance
    )
    rows = {order: [dataclasses.asdict(comparison) for comparison in found] for order, found in comparisons.items()}
    return {"comparisons": rows, "operators": operators}


def _generation(options: argparse.Namespace) -> dict[str, Any]:
    return check_generation(_draft(options)(), _cases(options))


def _outputs(options: argparse.Namespace) -> dict[str, Any]:
    session = _warm_session(options)
    computed = [Case(case.name, {}, session(**case.inputs)) for case in _cases(options)]
    options.outputs.write_bytes(dump_cases(computed))
    return {}


def _likelihood(options: argparse.Namespace) -> dict[str, Any]:
    return {"likelihoods": likelihoods(_warm_session(options), _cases(options))}


def _accuracy(options: argparse.Namespace) -> dict[str, Any]:
    return {"accuracy": [dataclasses.asdict(found) for found in measure(_warm_session(options), _cases(options))]}


def _confirm(options: argparse.Namespace) -> dict[str, Any]:
    return {"wrong": confirm(options.artifact, options.allow_operator)}


def _draft(options: argparse.Namespace) -> Callable[[], Session]:
    """A function that loads the draft anew."""
    manifest = from_json(options.manifest.read_bytes(), str(options.draft))
    return lambda: open_module(options.draft, manifest, options.allow_operator)


def _warm_session(options: argparse.Namespace) -> Session:
    session = _draft(options)()
    # The first calls run another graph than all later ones.
    session.warm_up()
    return session


def _cases(options: argparse.Namespace) -> list[Case]:
    return parse_cases(options.cases.read_bytes(), str(options.cases))


def _size(case: Case) -> tuple[int, int]:
    """The sort key of a case: batch size first, since most failures appear at batch size 1, then elements."""
    first = next(iter(case.inputs.values()))
    return first.shape[0], first.numel()


def _large(cases: Sequence[Case]) -> frozenset[str]:
    """Cases of much data, of which further calls in the same order take long and show nothing new.

    TorchScript optimises a graph at its first calls, whatever their size. The two smallest cases are called in every
    round all the same.

    Args:
        cases: the smallest first.
    """
    return frozenset(case.name for case in cases[2:] if sum(one.numel() for one in case.inputs.values()) > LARGE)


def _run_two_threads(
    session: Session, cases: Sequence[Case], large: Collection[str], open_session: Callable[[], Session]
) -> list[Comparison]:
    """The comparisons of two threads: one runs the cases forwards, the other backwards, at the same time.

    Of the `large` ones each runs every second.
    """
    big = [case.name for case in cases if case.name in large]
    forwards = [case for case in cases if case.name not in big[1::2]]
    backwards = [case for case in cases[::-1] if case.name not in big[::2]]
    return in_two_threads(
        lambda ordered: run_cases(session, ordered, rounds=1, reopen=open_session), forwards, backwards
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
