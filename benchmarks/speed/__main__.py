"""`python -m benchmarks.speed`: see `--help` and benchmarks/README.md.

Writes speed.json, .md and .svg into the folder of this processor's level in docs/benchmarks, and prints one line per
step. Without options it takes an hour: what decides, three rounds. `--full` times every contender, in nine rounds.
Times from an earlier run with the same number of rounds are kept (build/bench/results), so that an interrupted run can
be continued. Unknown rows and contenders are refused, and .venv-peers is required.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.harness import machine, places, reports
from benchmarks.harness.files import NotMadeError, prepare
from benchmarks.harness.process import WorkerError
from benchmarks.harness.race import run_profile, run_row, run_starts
from benchmarks.harness.rows import (
    CONTENDERS,
    PRECISIONS,
    Contender,
    Row,
    Settings,
    UnknownNameError,
    choose_contenders,
    choose_rows,
)
from benchmarks.speed import store
from benchmarks.speed.markdown import markdown
from benchmarks.speed.picture import picture

# First answer and memory are measured at one shape of a model.
_START_SHAPES = ("1x128", "1")
_PROFILE_ROWS = ("bert-base/8x128",)
_DECIDING = ",".join(contender.name for contender in CONTENDERS.values() if contender.decides)


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=(__doc__ or "").splitlines()[2])
    parser.add_argument("--rows", default="", help="e.g. minilm,bert-base/8x128 (default: all); * allowed")
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="default: %(default)s")
    parser.add_argument("--contenders", default="", help=f"e.g. tuned,openvino,floor (default: {_DECIDING})")
    parser.add_argument("--full", action="store_true", help="all contenders, 9 rounds of 0.7 s: four hours")
    parser.add_argument("--rounds", type=int, help="default: 3; with --full 9")
    parser.add_argument("--seconds", type=float, help="of a contender's block in a round (0.4; with --full 0.7)")
    parser.add_argument("--least", type=int, default=3, help="calls in a block (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes a contender; 0: none (%(default)s)")
    parser.add_argument(
        "--profile",
        default=",".join(_PROFILE_ROWS),
        help="rows of the native artifact to profile by operator; empty: none (%(default)s)",
    )
    parser.add_argument(
        "--tuned-for",
        choices=("model", "row"),
        default="model",
        help="tune one artifact for all shapes of a model, or one for each row (%(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="time rows that have results too")
    parser.add_argument("--report-only", action="store_true", help="write speed.md and .svg from speed.json")
    parser.add_argument("--output", type=Path, help="folder (docs/benchmarks/avx2, avx512 or amx)")
    options = parser.parse_args(arguments)
    options.output = options.output or places.OUTPUT / machine.level()
    options.rounds = options.rounds if options.rounds is not None else 9 if options.full else 3
    options.seconds = options.seconds if options.seconds is not None else 0.7 if options.full else 0.4
    if set(_list(options.precision)) - set(PRECISIONS):
        parser.error(f"--precision is {options.precision}; expected any of {', '.join(PRECISIONS)}")
    if options.rounds < 1 or options.least < 1 or options.threads < 1 or options.starts < 0:
        parser.error("--rounds, --least and --threads are 1 or more, --starts 0 or more")
    try:
        options.chosen = choose_rows(_list(options.rows), _list(options.precision))
        options.profiled = choose_rows(_list(options.profile), _list(options.precision)) if options.profile else []
        options.against = choose_contenders(_list(options.contenders), options.full)
    except UnknownNameError as error:
        parser.error(str(error))
    return options


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def main() -> None:
    options = options_of(sys.argv[1:])
    if not options.report_only:
        if not Path(places.PYTHON["peers"]).exists():
            sys.exit(".venv-peers is missing: make .venv-peers/.installed")
        settings = Settings(options.rounds, options.seconds, options.least, options.threads, options.tuned_for)
        measure(options, settings)
        older = reports.load_raw(options.output, "speed") if (options.output / "speed.json").exists() else None
        reports.save_raw(options.output, "speed", store.gather(settings, older))
    report(options.output)


def measure(options: argparse.Namespace, settings: Settings) -> None:
    """Time what was asked for and has no results yet; a row is stored as soon as it is done."""
    rows: list[Row] = options.chosen
    contenders: list[Contender] = options.against
    for model in dict.fromkeys(row.model for row in rows):
        try:
            prepare(model, settings.threads)
        except NotMadeError as error:
            sys.exit(f"cannot prepare {model}: {error}")
    for row in rows:
        if not options.again and store.is_done(row, contenders, settings):
            print(f"{row.name} {row.precision}: timed before (--again times it again)")
            continue
        entries = run_row(row, contenders, settings)
        store.write(row, contenders=entries)
        if row.shape in _START_SHAPES and options.starts:
            store.write(row, starts=run_starts(row, entries, options.starts, settings))
    for row in options.profiled:
        if row not in rows or not any(contender.name == "native" for contender in contenders):
            continue
        try:
            store.write(row, profile=run_profile(row, settings))
        except (NotMadeError, WorkerError) as error:
            print(f"{row.name} {row.precision}: no profile: {error}")


def report(folder: Path) -> None:
    """Write the table and the picture from speed.json alone."""
    result = reports.load_raw(folder, "speed")
    reports.save_page(folder, "speed", markdown(result), picture(result))


if __name__ == "__main__":
    main()
