"""How long does a worker take from process start to its first output?

Needs an artifact (bf16, IPEX, of the MiniLM model that `make demo` exports) and the folder it was exported from. Writes
docs/benchmarks/start.json, .md and .svg, and prints a table. Before anything is timed, all contenders' outputs are
compared. See benchmarks/README.md for the method.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import machine, places, reports, tables
from benchmarks.harness.charts import bars
from exporter.verification.subprocesses import python

# Each way is a program of its own. It prints the seconds of its one interesting step, then its answer.
_IDS = "ids = torch.arange(2000, 2016)[None]"
WAYS = {
    "runtime.load": f"""
import runtime, torch
start = time.perf_counter()
session = runtime.load(sys.argv[1])
step = time.perf_counter() - start
{_IDS}
answer = session(input_ids=ids)["sentence_embedding"]
""",
    "import IPEX, torch.jit.load": f"""
import torch
start = time.perf_counter()
import intel_extension_for_pytorch
step = time.perf_counter() - start
module = torch.jit.load(sys.argv[1])
{_IDS}
with torch.inference_mode():
    answer = module(ids, torch.ones_like(ids), torch.zeros_like(ids))[0]
""",
    "transformers, eager fp32": f"""
import torch
start = time.perf_counter()
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[2]).eval()
step = time.perf_counter() - start
{_IDS}
with torch.inference_mode():
    answer = torch.nn.functional.normalize(model(input_ids=ids).last_hidden_state.mean(1))
""",
}
_FRAME = "import sys, time\n{}\nimport json\nprint(json.dumps([step, answer[0, :384].tolist()]))"


def run(way: str, arguments: list[str]) -> tuple[float, float, list[float]]:
    """Seconds from spawning the process to its end, seconds of its step, its answer."""
    start = time.perf_counter()
    done = subprocess.run(
        [*python(_FRAME.format(WAYS[way])), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    total = time.perf_counter() - start
    step, answer = json.loads(done.stdout.splitlines()[-1])
    return total, step, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact")
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    arguments = [options.artifact, options.folder]

    # One round unrecorded: it fills the page cache and gives the answers to compare.
    answers = {way: run(way, arguments)[2] for way in WAYS}
    reference = answers["transformers, eager fp32"]
    for way, answer in answers.items():
        cosine = sum(a * b for a, b in zip(answer, reference, strict=True))
        print(f"answer of {way}: cosine {cosine:.5f} to eager fp32")
        if cosine < 0.999:
            sys.exit(f"{way} gives another answer; nothing was timed")

    times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS:
            total, step, _ = run(way, arguments)
            times[way].append((total, step))
            print(f"round {number + 1}  {way:<28} {total:6.2f} s, of which its step {step:6.2f} s")
    totals = {way: statistics.median(total for total, _ in rows) for way, rows in times.items()}
    steps = {way: statistics.median(step for _, step in rows) for way, rows in times.items()}
    result = {
        "question": "seconds from process start to first answer and end, MiniLM, 1x16, warm page cache",
        "machine": machine.description(),
        "versions": machine.versions(("torch", "intel-extension-for-pytorch", "transformers")),
        "python": platform.python_version(),
        "rounds": options.rounds,
        "total_median": totals,
        "step_median": steps,
        "rows": times,
    }
    reports.save_raw(places.OUTPUT, "start", result)
    report(result)


def report(result: Mapping[str, Any]) -> None:
    """Write the page and the picture."""
    totals, steps = result["total_median"], result["step_median"]
    head = ["", "process start to end, s", "of it its step, s"]
    body = [[way, f"{totals[way]:.2f}", f"{steps[way]:.2f}"] for way in totals]
    ratio = steps["runtime.load"] / steps["import IPEX, torch.jit.load"]
    verdict = f"runtime.load, warm-up included, takes {ratio:.2f} of what importing IPEX alone takes"
    print(tables.plain(head, body) + f"\n{verdict}")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# Process start to first answer",
        "",
        f"`make bench-start`: {result['question']}; medians of {result['rounds']} rounds.",
        f"Machine: {result['machine']}; Python {result['python']}, {versions}.",
        "",
        "![Process start to first answer, seconds](start.svg)",
        "",
        *tables.table(head, body),
        "",
        f"The step is what a way does after `import torch`: {verdict}.",
    ]
    picture = bars("Process start to first answer (lower is better)", {"seconds": totals})
    reports.save_page(places.OUTPUT, "start", "\n".join(lines) + "\n", picture)


if __name__ == "__main__":
    main()
