"""`python -m benchmarks.generate`: see `--help` and benchmarks/README.md.

Writes generate.json, .md and .svg into the folder of this processor's level in docs/benchmarks, and prints one line per
step. Finished rows are kept (build/bench/results) until the exporter or the runtime changes, so that an interrupted run
can be continued. Unknown rows and contenders are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.generate import store
from benchmarks.generate.markdown import markdown
from benchmarks.generate.picture import picture
from benchmarks.generate.rows import CONTENDERS, PRECISIONS, Settings, choose_contenders, choose_rows
from benchmarks.generate.running import prepare, run_row, run_starts, weights_bytes
from benchmarks.harness import machine, places, reports
from benchmarks.harness.files import NotMadeError
from benchmarks.harness.rows import UnknownNameError


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=(__doc__ or "").splitlines()[2])
    parser.add_argument("--rows", default="", help="models, e.g. smollm2 (default: all)")
    parser.add_argument("--precision", default="", help=f"e.g. fp32,int8 (default: {','.join(PRECISIONS)})")
    parser.add_argument("--contenders", default="", help=f"default: {','.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes a contender; 0: none (%(default)s)")
    parser.add_argument("--again", action="store_true", help="time rows that have results too")
    parser.add_argument("--report-only", action="store_true", help="write generate.md and .svg from generate.json")
    parser.add_argument("--output", type=Path, help="folder (docs/benchmarks/avx2, avx512 or amx)")
    options = parser.parse_args(arguments)
    options.output = options.output or places.OUTPUT / machine.level()
    if options.rounds < 1 or options.threads < 1 or options.starts < 0:
        parser.error("--rounds and --threads are 1 or more, --starts 0 or more")
    try:
        options.chosen = choose_rows(_list(options.rows), _list(options.precision))
        options.against = choose_contenders(_list(options.contenders))
    except UnknownNameError as error:
        parser.error(str(error))
    return options


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def main() -> None:
    options = options_of(sys.argv[1:])
    if not options.report_only:
        settings = Settings(options.rounds, options.threads)
        measure(options, settings)
        reports.save_raw(options.output, "generate", store.gather(settings))
    report(options.output)


def measure(options: argparse.Namespace, settings: Settings) -> None:
    """Time what was asked for and has no results yet; a row is stored as soon as it is done."""
    for model in dict.fromkeys(row.model for row in options.chosen):
        try:
            prepare(model, settings.threads)
        except NotMadeError as error:
            sys.exit(f"cannot prepare {model}: {error}")
    for row in options.chosen:
        if not options.again and store.is_done(row, options.against, settings):
            print(f"{row.name}: timed before (--again times it again)")
            continue
        entries = run_row(row, options.against, settings)
        store.write(row, contenders=entries, sizes=weights_bytes(row))
        if options.starts:
            store.write(row, starts=run_starts(row, entries, options.starts, settings))


def report(folder: Path) -> None:
    """Write the table and the picture from generate.json alone."""
    result = reports.load_raw(folder, "generate")
    reports.save_page(folder, "generate", markdown(result), picture(result))


if __name__ == "__main__":
    main()
