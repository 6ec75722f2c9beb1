"""`python -m benchmarks.loadgen`: see `--help` and benchmarks/README.md.

Writes docs/benchmarks/loadgen.json, .md and .svg, and prints one line per step.

LoadGen's own logs of the last run of each scenario are kept in build/loadgen. Unknown systems and scenarios are
refused, and .venv-peers is required.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, places, reports
from benchmarks.harness.files import NotMadeError
from benchmarks.harness.rows import MODELS, UnknownNameError
from benchmarks.loadgen import samples
from benchmarks.loadgen.batches import batches
from benchmarks.loadgen.files import MODEL, files_of, make_samples
from benchmarks.loadgen.markdown import markdown
from benchmarks.loadgen.measure import SCENARIOS, measure
from benchmarks.loadgen.picture import picture
from benchmarks.loadgen.running import Entry
from benchmarks.loadgen.systems import LATENCY_MS, System, choose_systems

METHOD = (
    "Each system is a process of its own environment with LoadGen in it: the callbacks are the same Python for all, "
    "and no query crosses a process's border. One LoadGen process that talks with workers would be a third process on "
    "two cores, and what it costs a query would hide differences.",
    "Two processes a system: one stream with two threads, two streams with one thread each. In each, first every "
    "sample in LoadGen's accuracy mode, compared with eager fp32 of the same weights; who is wrong is not timed. Then "
    "a short Offline run a strategy: queries one by one without padding; batches of the query that waits longest and "
    "those of nearly its length, padded to the longest, within a budget of tokens; for the peers also lengths rounded "
    "up to buckets.",
    "Our batches are the pool's own; the peers' are formed in the same way (benchmarks/loadgen/queueing.py), in front "
    "of OpenVINO's AsyncInferQueue and of ONNX Runtime's threads. Nobody waits for a batch to fill.",
    "Offline: all queries at once, given to every system sorted by length, the longest first, 128 of them at a time; "
    "each sample is asked as often as every other. The fastest strategy of the trials, rounds that take turns; the "
    "median of the rounds.",
    "Server: queries arrive at random moments (Poisson), the same for every system but for the rate. The three fastest "
    "strategies run at 90 % of what the fastest does Offline; the one with the lowest p99 goes on. Then a search: up "
    "or down by 15 %, then by more, until one rate holds and a higher one does not, then halving, until the two "
    "are within 2 %. Systems take turns, a rate each.",
    "SingleStream: one query after the other, each called at once with both cores, without a queue.",
    "The two padded batches are timed like a row of `make bench`: blocks of calls in turn, the median of the blocks' "
    "medians; OpenVINO with its latency hint and the faster of dynamic and static shape, of its converter and ONNX.",
    "While one system is asked the others are stopped by a signal.",
)
LEFT_OUT = (
    "Tokenising, and turning answers into labels.",
    "int8; ONNX Runtime in bf16, which its CPU provider lacks.",
    "Exporting, converting and loading; the first calls.",
    "LoadGen's MultiStream scenario; its minimum of ten minutes and the seeds of an official submission.",
)


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen", description=(__doc__ or "").splitlines()[2])
    parser.add_argument("--systems", default="", help="e.g. onednn,openvino (default: all)")
    parser.add_argument(
        "--precision", choices=["bf16", "fp32"], default="bf16", help="of those that have it (default: %(default)s)"
    )
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=7.0,
        help="of a run; Server twice as long, trials and SingleStream half (%(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of Offline and SingleStream; of the batches twice as many (%(default)s)"
    )
    parser.add_argument("--report-only", action="store_true", help="write loadgen.md and .svg from loadgen.json")
    parser.add_argument("--output", type=Path, default=places.OUTPUT, help="folder (docs/benchmarks)")
    options = parser.parse_args(arguments)
    options.scenarios = [name for name in options.scenarios.split(",") if name]
    if not options.scenarios or set(options.scenarios) - set(SCENARIOS):
        parser.error(f"--scenarios is {','.join(options.scenarios)!r}; expected any of {', '.join(SCENARIOS)}")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds is 1 or more, --seconds more than 0")
    try:
        options.chosen = choose_systems([name for name in options.systems.split(",") if name], options.precision)
    except UnknownNameError as error:
        parser.error(str(error))
    return options


def main() -> None:
    options = options_of(sys.argv[1:])
    if not options.report_only:
        if not Path(places.PYTHON["peers"]).exists():
            sys.exit(".venv-peers is missing: make .venv-peers/.installed")
        ask(options)
    report(options.output)


def ask(options: argparse.Namespace) -> None:
    """Make what is needed, measure what was asked for; loadgen.json is written after each part of it."""
    begun = time.monotonic()
    try:
        make_samples()
    except NotMadeError as error:
        sys.exit(f"cannot prepare the samples: {error}")
    ready: list[tuple[System, dict[str, str]]] = []
    entries: dict[str, Entry] = {}
    for system in options.chosen:
        try:
            ready.append((system, files_of(system)))
        except NotMadeError as error:
            entries[system.name] = {"status": "missing", "reason": str(error), "trials": {}}
    # The batches first: their processes end before those of the scenarios begin.
    found = batches(options.chosen, 2 * options.rounds, 0.7) if "batches" in options.scenarios else {}

    def keep(measured: dict[str, Entry]) -> None:
        result = gather(options, entries | measured, found)
        result["settings"]["minutes"] = round((time.monotonic() - begun) / 60, 1)
        reports.save_raw(options.output, "loadgen", result)

    keep({})
    if set(options.scenarios) - {"batches"}:
        measure(ready, options.scenarios, options.seconds, options.rounds, keep)


def gather(options: argparse.Namespace, entries: dict[str, Entry], found: dict[str, Any]) -> dict[str, Any]:
    """The figures with the machine, the versions and the method."""
    drawn, facts = samples.lengths(), machine.surroundings()
    version = importlib.metadata.version("mlcommons-loadgen")
    return {
        "question": "samples a second, and the highest rate of queries at a p99 latency, on texts of different lengths",
        **facts,
        "versions": facts["versions"] | {"mlcommons-loadgen": version},
        "settings": {"seconds": options.seconds, "rounds": options.rounds, "latency_ms": LATENCY_MS},
        "model": f"{MODEL}: {MODELS[MODEL].about}, a head of two labels",
        "lengths": {
            "count": len(drawn),
            "least": int(drawn.min()),
            "most": int(drawn.max()),
            "mean": float(drawn.mean()),
            "longest": samples.LONGEST,
            "share": float(drawn.mean() / samples.LONGEST),
            "about": f"log-normal with median {samples.MEDIAN:g} and sigma {samples.SIGMA:g} of the logarithm, cut to "
            f"{samples.SHORTEST} … {samples.LONGEST}, seed {samples.SEED}",
        },
        "ragged": ", ".join(map(str, samples.RAGGED)),
        "systems": {
            system.name: {"kind": system.kind, "precision": system.precision, "about": system.about}
            | entries.get(system.name, {"status": "timed", "trials": {}})
            for system in options.chosen
        },
        "batches": found,
        "method": list(METHOD),
        "left_out": list(LEFT_OUT),
    }


def report(folder: Path) -> None:
    """Write the tables and the picture from loadgen.json alone."""
    result = reports.load_raw(folder, "loadgen")
    reports.save_page(folder, "loadgen", markdown(result), picture(result))


if __name__ == "__main__":
    main()
