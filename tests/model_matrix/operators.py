"""`python -m tests.model_matrix.operators`: find the operators that exports contain; `operators.def` is made from them.

Options: `[--kind KIND] [--backend NAME] [--precision NAME] [--every N]`. Prints one line per pair. The operators of
each pair are appended to `build/coverage/operators.BACKEND-PRECISION.jsonl`, so that an interrupted run can be
continued. `tests/model_matrix/operators.json` counts, by backend and precision, the files that contain each operator,
keyword and method. Nothing is verified or timed: a pair takes a second. The exit code is 1 if a file contains something
that is not on the list.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers

from exporter import ExportRequest, export
from runtime.artifact import artifact_file
from runtime.artifact.operator_allowlist import uses_of
from runtime.artifact.operator_lists import lists
from runtime.errors import ExportedModelError, ForbiddenOperatorError
from tests.model_matrix.pairs import Pair, all_pairs
from tests.model_matrix.tiny import tiny_model

FOLDER = Path(__file__).parent
BUILD = FOLDER.parent.parent / "build" / "coverage"
SECONDS, BYTES = 150, 6 * 2**30


def main() -> int:
    """Export what is missing, then write the summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.model_matrix.operators")
    parser.add_argument("--kind", choices=("encoder", "generator", "other"), help="only model types of this kind")
    parser.add_argument("--backend", choices=("plain", "onednn", "ipex"), default="plain")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th pair")
    options = parser.parse_args()
    name = f"{options.backend}-{options.precision}"
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"operators.{name}.jsonl"
    done = _rows(path)
    pairs = [pair for pair in all_pairs() if options.kind in (None, pair.kind)][:: options.every]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with path.open("a") as file:
        for pair in pairs:
            if pair.name not in done:
                row = _in_a_process(pair, options.backend, options.precision)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(f"{pair.name}: {row['reason'] or len(row['uses'])}", flush=True)
    return write_summary(name, list(_rows(path).values()))


def write_summary(name: str, rows: list[dict[str, Any]]) -> int:
    """Put the rows of one backend and precision into `operators.json`; 1 if they have what the list lacks."""
    counts = Counter(use for row in rows for use in row["uses"])
    path = FOLDER / "operators.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole[name] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "files": sum(bool(row["uses"]) for row in rows),
        "pairs": len(rows),
        "uses": dict(sorted(counts.items())),
    }
    path.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    known = lists()
    allowed = {f"operator {n}" for n in known.operators} | {f"keyword {n}" for n in known.keywords}
    allowed |= {f"function {n}" for n in known.functions} | {f"method {n}" for n in known.methods}
    lacking = sorted(counts.keys() - allowed)
    print(f"{name}: {whole[name]['files']} files of {len(rows)} pairs; not on the list: {', '.join(lacking) or 'none'}")
    return 1 if lacking else 0


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    found = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {row["pair"]: row for row in found}


def _in_a_process(pair: Pair, backend: str, precision: str) -> dict[str, Any]:
    row: dict[str, Any] = {"pair": pair.name, "uses": [], "reason": "no end"}
    with tempfile.TemporaryDirectory(prefix="operators.") as folder:
        answer = Path(folder) / "answer"
        process = os.fork()
        if process == 0:
            try:
                _confine()
                answer.write_text(json.dumps(_uses(pair, backend, precision, Path(folder))))
            finally:
                os._exit(0)
        _, status = os.waitpid(process, 0)
        if answer.exists():
            row |= json.loads(answer.read_text())
            return row
    return row | {"reason": f"the process ended with {os.waitstatus_to_exitcode(status)}"}


def _confine() -> None:
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _uses(pair: Pair, backend: Any, precision: Any, folder: Path) -> dict[str, Any]:
    try:
        tiny_model(pair.model_type, pair.architecture).save_pretrained(folder)
        output = folder / "model.pt"
        options: dict[str, Any] = {"backend": backend, "precision": precision, "verify": "off", "tune": "off"}
        export(ExportRequest(str(folder), output, task=pair.task, **options))
    except ForbiddenOperatorError as error:
        return {"uses": [f"operator {name}" for name in error.operators], "reason": error.found}
    except ExportedModelError as error:
        return {"reason": str(error)[:200]}
    except Exception as error:  # noqa: BLE001 (constructors of hundreds of architectures, with guessed sizes)
        return {"reason": repr(error)[:200]}
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(artifact_file.open_archive(output))
        return {
            "uses": sorted({f"{kind} {name}" for kind, name in uses_of(archive) if kind != "binding"}),
            "reason": "",
        }


if __name__ == "__main__":
    sys.exit(main())
