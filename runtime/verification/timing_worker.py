"""Time an artifact's calls: a program that keeps a file loaded and times it when asked.

The first line on standard input, `{"load": true}`, lets it load the file, and is answered by `{"ready": true}`. Each
further line of JSON is a request, `{"shape": {axis: size}, "padded": false, "calls": N}`, answered by a line
`{"milliseconds": [one number per call]}`. A line `{"error": text}` ends the output.

Between requests the process only waits, so that others can be loaded and timed in turn. Candidates run in separate
processes, since IPEX replaces some of PyTorch's kernels for a whole process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from runtime.errors import ExportedModelError
from runtime.format.codec import from_json
from runtime.session import Session, open_module, placeholders


def time_calls(session: Session, shape: dict[str, int], calls: int, padded: bool = False) -> list[float]:
    """Milliseconds of each of `calls` calls at one shape; `padded` as in `runtime.format.manifest.Timing`."""
    inputs = placeholders(session.manifest, shape)
    if padded:
        mask = inputs["attention_mask"]
        rows, size = mask.shape
        lengths = torch.arange(1, rows + 1).unsqueeze(1) * size / rows
        inputs["attention_mask"] = mask * (torch.arange(size) < lengths)
    found = []
    for _ in range(calls):
        start = perf_counter()
        session(**inputs)
        found.append(1e3 * (perf_counter() - start))
    return found


def main(argv: Sequence[str]) -> int:
    """Serve requests until standard input ends. The exit code is 0 unless this program itself fails."""
    parser = argparse.ArgumentParser(prog="python -m runtime.verification.timing_worker")
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--allow-operator", action="append", default=[])
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    # Any line: this process has imported what it needs, and the others may do so meanwhile.
    sys.stdin.readline()
    try:
        manifest = from_json(options.manifest.read_bytes(), str(options.draft))
        session = open_module(options.draft, manifest, options.allow_operator)
        _send({"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            _send({"milliseconds": time_calls(session, request["shape"], request["calls"], request["padded"])})
    except ExportedModelError as error:
        _send({"error": str(error)[:600]})
    return 0


def _send(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
