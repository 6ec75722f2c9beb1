"""Results between runs: one JSON file per row in build/bench/results, collected into one value for docs/benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, places, reports
from benchmarks.harness.files import exporter_sources
from benchmarks.harness.rows import CONTENDERS, MODELS, ROWS, Contender, Row, Settings

METHOD = (
    "Each contender is a process of its own and reads the same checkpoint. Its answers to the row's inputs are "
    "compared with those of eager fp32 before anything is timed; who is wrong is not timed.",
    "Rounds: in each, every contender in turn is timed for a block of calls, the others stopped by a signal, with a "
    "pause between two; each round begins with another contender. A block's first call is not counted. A time is the "
    "median over rounds of the blocks' medians.",
    "Inputs are dense: no padding. Calls take the row's inputs in turn. Where a contender has several forms (kinds of "
    "attention, static or dynamic shape), its fastest at that row is taken, found before the rounds begin.",
    "First answer and memory: fresh processes, page cache warm; the median of the repeats. Steady memory is resident "
    "memory after warm-up, beyond what importing the framework takes.",
    "The floor is the time of the model's matrix products alone with packed weights, timed in the same rounds.",
)
LEFT_OUT = (
    "Tokenising, and turning answers into lists.",
    "Exporting, converting, compiling and calibrating.",
    "Other allocators, huge pages, pinning of threads to cores; batches with padding.",
    "max-autotune of Inductor; reductions of the model itself.",
)


def path_of(row: Row) -> Path:
    """The row's file."""
    return places.RESULTS / f"{row.file}.json"


def read(row: Row) -> dict[str, Any]:
    """What is known of a row; `contenders` may be empty."""
    path = path_of(row)
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text())
        return known
    return {"model": row.model, "shape": row.shape, "precision": row.precision, "contenders": {}}


def write(row: Row, **parts: dict[str, Any]) -> None:
    """Put new entries in place of the old ones of the same name; the file is replaced as a whole."""
    known = read(row)
    for name, entries in parts.items():
        known[name] = known.get(name, {}) | entries
    path = path_of(row)
    reports.write_whole(path, json.dumps(known, indent=1) + "\n")


def is_done(row: Row, contenders: Sequence[Contender], settings: Settings) -> bool:
    """Whether an earlier run asked all of these, for as many rounds, and exporter and runtime are no newer.

    What failed then counts as done: it would fail again.
    """
    path = path_of(row)
    if not path.exists() or any(source.stat().st_mtime > path.stat().st_mtime for source in exporter_sources()):
        return False
    known = read(row)["contenders"]
    return all(
        contender.name in known
        and (known[contender.name]["status"] != "timed" or len(known[contender.name]["blocks_ms"]) >= settings.rounds)
        for contender in contenders
        if row.precision in contender.precisions
    )


def gather(settings: Settings, older: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All rows that have results, with the machine, the versions and the method.

    Args:
        settings: those of this run.
        older: the raw results of an earlier run. Rows that only it has are kept, if it is of the same machine and
            versions: a table never mixes machines.
    """
    surroundings = machine.surroundings()
    kept = {}
    if older is not None and all(older[name] == surroundings[name] for name in ("machine", "versions")):
        kept = {(row["model"], row["shape"], row["precision"]): row for row in older["rows"]}
    rows = []
    for row in ROWS:
        if path_of(row).exists():
            rows.append(read(row))
        elif (row.model, row.shape, row.precision) in kept:
            rows.append(kept[row.model, row.shape, row.precision])
    return {
        "question": "milliseconds a call, median over interleaved rounds of the blocks' medians",
        **surroundings,
        "settings": {
            "rounds": settings.rounds,
            "seconds a block": settings.seconds,
            "least calls a block": settings.least,
            "threads": settings.threads,
            "tuned for": f"each {settings.tuned_for}",
        },
        "models": {name: model.about for name, model in MODELS.items()},
        "contenders": {
            contender.name: {"kind": contender.kind, "about": contender.about} for contender in CONTENDERS.values()
        },
        "weights_bytes": {
            name: json.loads(places.facts_of(name).read_text())["weights_bytes"]
            for name in MODELS
            if places.facts_of(name).exists()
        },
        "method": list(METHOD),
        "left_out": list(LEFT_OUT),
        "rows": rows,
    }
