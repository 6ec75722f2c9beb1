"""Change artifacts in what they are made of, load and call them, many times: `make fuzz`.

In: `--cases N --seed S --processes P`, or `--only INDEX` to write one case's file and load it here. Out: counts by
outcome, the slowest case, the largest memory. Exit code 1 on a crash, a hang, an exception that is not one of ours, or
a load that succeeds and answers otherwise. A case is its seed and its index, nothing else.

Changed are bytes, zip fields, records, pickles by their opcodes, code by its words, and the manifest; most with digests
that fit again. Code that loads is also run. One outcome is counted apart and is no failure: changed code with a loop
that does not end. The runtime is no sandbox and does not stop a model that computes (SECURITY.md).
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import multiprocessing.connection
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from exporter.verification.subprocesses import away

ROOT = Path(__file__).parent.parent
BACKENDS = ("plain", "onednn")


def main() -> int:
    """Run the cases and print what came of them."""
    parser = argparse.ArgumentParser(description="Change artifacts, load and call them, many times.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, help="repeat one case, without limits, and keep its file in build/")
    parser.add_argument("--artifact", type=Path, action="append", help="small artifacts; left out: two are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bases = [path.read_bytes() for path in options.artifact or _make(Path(folder))]
        if options.only is None:
            return _run(options, bases, folder)
    from tests.fuzzing.mutations import mutate

    kind, data = mutate(bases[options.only % len(bases)], options.seed, options.only)
    path = ROOT / "build" / f"fuzz-{options.seed}-{options.only}.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    print(kind, path, flush=True)
    from runtime import load
    from runtime.session import placeholders

    session = load(path)
    session(**placeholders(session.manifest, {"batch": 2, "sequence": 8}))
    return 0


def _make(folder: Path) -> list[Path]:
    """A very small classifier, through each backend; the same each time, so that an index means the same."""
    from exporter import ExportRequest, export
    from tests.conftest import tiny_model

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    tiny_model("bert", "text-classification", num_labels=3, vocab_size=64, **sizes).save_pretrained(folder / "model")
    made = []
    for backend in BACKENDS:
        made.append(folder / f"{backend}.pt")
        export(
            ExportRequest(
                model=str(folder / "model"),
                output=made[-1],
                backend=backend,  # type: ignore[arg-type]
                verify="quick",
                tune="off",
                padding="keep",
            )
        )
    return made


def _run(options: argparse.Namespace, bases: list[bytes], folder: str) -> int:
    from tests.fuzzing.trial import work

    context = multiprocessing.get_context("spawn")
    counts: collections.Counter[str] = collections.Counter()
    failures, slowest, peak, began = 0, (0.0, -1, ""), 0, time.monotonic()
    pipes: list[Any] = []
    for number in range(options.processes):
        mine, theirs = context.Pipe()
        indices = range(number, options.cases, options.processes)
        process = context.Process(target=work, args=(theirs, bases, folder, options.seed, indices))
        with away():
            process.start()
        theirs.close()
        pipes.append(mine)
    while pipes:
        for pipe in multiprocessing.connection.wait(pipes):
            row: Any = pipe.recv()  # type: ignore[union-attr,call-arg]
            if row is None:
                pipes.remove(pipe)
                continue
            index, outcome, took, memory, kind = row
            counts[outcome.split(":")[0]] += 1
            slowest, peak = max(slowest, (took, index, kind)), max(peak, memory)
            if outcome.startswith(("WRONG", "UNNAMED", "HANG", "CRASH")):
                failures += 1
                print(f"seed {options.seed} case {index} ({kind}): {outcome}", flush=True)
    for outcome, count in counts.most_common():
        print(f"{count:>7} {outcome}")
    print(f"slowest: {slowest[0]:.2f} s, case {slowest[1]} ({slowest[2]}); memory above start: {peak / 1024:.0f} MB")
    print(f"{sum(counts.values())} cases in {time.monotonic() - began:.0f} s, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]
    sys.exit(main())
