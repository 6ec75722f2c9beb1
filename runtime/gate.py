"""The fresh process's side of the gate: run a draft in every order that a consumer might.

In: `--draft FILE --manifest JSON --cases SAFETENSORS --report JSON --threads N`. Out: the report, which holds
`parities` (a list an order), `operators` (of the executed graph), or `error`, one line. A draft has no manifest yet, so
it comes as a file of its own. Refuses nothing by itself: the exporter judges.

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
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from runtime import manifest
from runtime.check import Parity, executed_operators, run_cases
from runtime.errors import ExportedModelError
from runtime.golden import Case, parse_cases
from runtime.session import Session, open_module


def main(argv: Sequence[str]) -> int:
    """Run the orders and write the report; the exit code is 0 unless this program itself fails."""
    parser = argparse.ArgumentParser(prog="python -m runtime.gate")
    for option in ("--draft", "--manifest", "--cases", "--report"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        described = manifest.from_json(options.manifest.read_bytes(), str(options.draft))
        cases = sorted(parse_cases(options.cases.read_bytes(), str(options.cases)), key=_size)
        parities: dict[str, list[Parity]] = {}
        session = open_module(options.draft, described)
        parities["batch-1-first"] = run_cases(session, cases, survive=True)
        operators = executed_operators()
        session = open_module(options.draft, described)
        parities["largest-first"] = run_cases(session, cases[::-1], survive=True)
        parities["two-threads"] = _two_threads(session, cases)
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


def _two_threads(session: Session, cases: Sequence[Case]) -> list[Parity]:
    """Both threads' parities: one goes through the cases forwards, the other backwards."""
    found: list[Parity] = []
    failures: list[ExportedModelError] = []

    def work(ordered: Sequence[Case]) -> None:
        try:
            found.extend(run_cases(session, ordered, rounds=1, survive=True))
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
