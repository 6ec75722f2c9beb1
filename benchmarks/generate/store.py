"""Results between runs: one JSON file per row in build/bench/results, collected into one value for docs/benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.generate import rows
from benchmarks.generate.rows import CONTENDERS, MODELS, Contender, Row, Settings
from benchmarks.harness import machine, places, reports
from benchmarks.harness.files import exporter_sources

METHOD = (
    "Each contender is a process of its own. All weights come from one checkpoint in fp32, converted by each peer's "
    "own converter, except llama.cpp's, whose converter is in no package (benchmarks/generate/gguf_file.py).",
    f"The same ids for all: prompts of {rows.PROMPT} and {rows.LONG_PROMPT} tokens, greedy, no stop token. "
    f"{rows.COMPARED} tokens are compared with eager fp32's before anything is timed, of one row and of "
    f"{rows.ROWS_TOGETHER} together; whose text is wrong is not timed: at least "
    + ", ".join(f"{least} in {precision}" for precision, least in rows.LEAST_EQUAL.items())
    + " must be the same from the first on, in every row, or in int8 and int4 in the middle one: a row whose best two "
    "tokens are nearly equal may begin with the other one.",
    f"Rounds: in each, every contender in turn writes {rows.NEW} tokens behind a prompt of {rows.PROMPT}, the first "
    f"token behind one of {rows.LONG_PROMPT}, and {rows.NEW} tokens of {rows.ROWS_TOGETHER} rows together; the others "
    "are stopped by a signal. Figures are medians over the rounds.",
    "Tokens per second count from the first new token on, or with several rows from the moment at which each has one. "
    "A prompt's time is that to its first new token.",
    "Share: weights that a token reads (int4: with scales, the head in int8), times tokens per second, over the speed "
    "at which memory was read in the same rounds.",
    "First token and peak: fresh processes, page cache warm, a prompt of 128; the peak through all measurements, "
    "beyond what importing the framework takes. In C++ it is that of the whole process, for one token.",
)
LEFT_OUT = (
    "Tokenising, sampling, chat templates; speculative decoding and reuse of prompts.",
    "Exporting and converting; quantisation with data.",
    "Other allocators, huge pages, pinning of threads to cores.",
)
PACKAGES = ("openvino-genai", "openvino", "onnxruntime-genai", "onnxruntime", "xllamacpp", "ctranslate2")
CONVERTERS = ("optimum-intel", "nncf", "transformers", "torch")


def path_of(row: Row) -> Path:
    """The row's file."""
    return places.RESULTS / f"generate-{row.file}.json"


def read(row: Row) -> dict[str, Any]:
    """What is known of a row; `contenders` may be empty."""
    if path_of(row).exists():
        known: dict[str, Any] = json.loads(path_of(row).read_text())
        return known
    return {"model": row.model, "precision": row.precision, "contenders": {}, "starts": {}}


def write(row: Row, **parts: Any) -> None:
    """Put new entries in place of the old ones of the same name; the file is replaced as a whole."""
    known = read(row)
    for name, entries in parts.items():
        known[name] = known.get(name, {}) | entries
    reports.write_whole(path_of(row), json.dumps(known, indent=1) + "\n")


def is_done(row: Row, contenders: Sequence[Contender], settings: Settings) -> bool:
    """Whether an earlier run asked all of these, for as many rounds, and exporter and runtime are no newer."""
    path = path_of(row)
    if not path.exists() or any(source.stat().st_mtime > path.stat().st_mtime for source in exporter_sources()):
        return False
    known = read(row)["contenders"]

    def rounds(entry: dict[str, Any]) -> int:
        return len(entry.get("tokens") or entry.get("bytes_per_s") or ())

    return all(
        one.name in known and (known[one.name]["status"] != "timed" or rounds(known[one.name]) >= settings.rounds)
        for one in contenders
    )


def gather(settings: Settings) -> dict[str, Any]:
    """All rows that have results, with the machine, the versions and the method."""
    surroundings = machine.surroundings()
    versions = {name: surroundings["versions"][name] for name in ("torch", "transformers")}
    versions |= machine.versions_in(places.GENAI, PACKAGES)
    return {
        "machine": surroundings["machine"],
        "system": surroundings["system"],
        "versions": versions,
        "converters": machine.versions_in(places.SENTENCE, CONVERTERS),
        "settings": {"rounds": settings.rounds, "threads": settings.threads},
        "models": {name: model.about for name, model in MODELS.items()},
        "contenders": {one.name: {"kind": one.kind, "about": one.about} for one in CONTENDERS.values()},
        "method": list(METHOD),
        "left_out": list(LEFT_OUT),
        "rows": [read(row) for row in rows.choose_rows((), ()) if path_of(row).exists()],
    }
