"""Mutate an artifact and load it, many times: `make fuzz`.

In: `--cases N --seed S --processes P`, or `--only INDEX` to repeat one case here. Out: counts by outcome, the slowest
case, the largest memory. Exit code 1 on a crash, a hang, an exception that is not one of ours, or a load that succeeds
and answers otherwise. A case is its seed and its index, nothing else.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import math
import multiprocessing
import multiprocessing.connection
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

from exporter.processes import away

ROOT = Path(__file__).parent.parent
SECONDS, MEGABYTES = 2.0, 512
NUMBERS = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 30, 46, 22]
VALUES: list[Any] = [None, True, 0, 1, -1, 7, 300, 2**24, 2**31, 2**63, 10**400, 0.5, 1e308, "", "x", "9" * 5000]
VALUES += ["\x1b[2J", "../../x", [], {}, [[]] * 9, {"a": {}}, "2.8.0", "2.9.0", "logits", "1" * 64, [1] * 1000]
Parts = list[tuple[str, bytes, int]]


def _read(whole: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]


def _write(parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content, compression in parts:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def _resealed(parts: Parts) -> Parts:
    """The digests made to fit, as a forger would."""
    import hashlib

    listed = [
        {"name": name.split("/", 1)[1], "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content, _ in parts[:-1]
    ]
    name, text, compression = parts[-1]
    return [*parts[:-1], (name, json.dumps(json.loads(text) | {"parts": listed}).encode(), compression)]


def _flip(data: bytes, dice: random.Random, begin: int = 0) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        if changed:
            changed[dice.randrange(begin, len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _splice(data: bytes, dice: random.Random) -> bytes:
    """Cut a piece out, or put one in: zeros, noise, or another piece of the same."""
    place, length = dice.randrange(len(data) + 1), dice.choice([1, 2, 4, 22, 46, 100, 4096])
    other = dice.randrange(len(data) + 1)
    piece = dice.choice([b"", bytes(length), dice.randbytes(length), data[other : other + length]])
    return data[:place] + piece + data[place + dice.choice([0, length]) :]


def _leaf(value: Any, dice: random.Random) -> Any:
    """The same JSON with one value, somewhere, exchanged, doubled or removed."""
    if isinstance(value, (dict, list)) and value and dice.random() < 0.9:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        key = dice.choice(list(value)) if isinstance(value, dict) else dice.randrange(len(value))
        if dice.random() < 0.1:
            del copy[key]
        elif isinstance(value, list) and dice.random() < 0.1:
            copy.append(value[key])
        else:
            copy[key] = _leaf(value[key], dice)
        return copy
    if isinstance(value, int) and dice.random() < 0.5:
        return value + dice.choice([1, -1, 2, 15, 500, 2**10, 2**16, 2**20, 2**23, 2**40])
    return dice.choice(VALUES)


def mutate(whole: bytes, seed: int, index: int) -> tuple[str, bytes]:
    """The name of what was done, and the bytes. Names in `FORGED` may change the answers."""
    dice = random.Random(seed * 1_000_003 + index)
    kind = dice.choice(KINDS)
    directory = whole.rindex(b"PK\5\6")
    start = struct.unpack_from("<L", whole, directory + 16)[0]
    if kind == "flip":
        return kind, _flip(whole, dice)
    if kind == "flip in the directory":
        return kind, _flip(whole, dice, start)
    if kind == "cut":
        return kind, whole[: dice.randrange(len(whole))]
    if kind == "splice":
        return kind, _splice(whole, dice)
    if kind == "sizes":
        changed = bytearray(whole)
        signs = (b"PK\1\2", b"PK\3\4")
        heads = [i for sign in signs for i in range(len(whole) - 3) if whole[i : i + 4] == sign]
        for place in dice.sample(heads, dice.choice([1, 1, 2])):
            field = dice.randrange(4, 30, 2)
            struct.pack_into("<L", changed, place + field, dice.choice([*NUMBERS, len(whole), dice.getrandbits(32)]))
        return kind, bytes(changed)
    if kind == "end":
        changed = bytearray(whole)
        struct.pack_into("<L", changed, directory + dice.randrange(4, 19), dice.choice(NUMBERS))
        return kind, bytes(changed)
    parts = _read(whole)
    one, two = dice.sample(range(len(parts)), 2)
    name, content, compression = parts[one]
    if kind == "swap":
        parts[one], parts[two] = (name, *parts[two][1:]), (parts[two][0], content, compression)
    elif kind == "double":
        parts.insert(two, (dice.choice([name, name.upper(), name + "/", "./" + name]), content, compression))
    elif kind == "rename":
        parts[one] = (dice.choice([name + "x", "../" + name, "/" + name, "b/x", "a\\b/c", parts[two][0]]), content, 0)
    elif kind == "remove":
        del parts[one]
    elif kind == "bomb":
        parts[one] = (name, bytes(dice.choice([2**16, 2**20, 2**25])), zipfile.ZIP_DEFLATED)
    elif kind == "content":
        parts[one] = (name, _splice(_flip(content, dice), dice), compression)
    elif kind == "manifest":
        value = json.loads(parts[-1][1])
        for _ in range(dice.choice([1, 1, 1, 2, 4])):
            value = _leaf(value, dice)
        parts[-1] = (parts[-1][0], json.dumps(value).encode(), 0)
    elif kind == "manifest text":
        deep = b"[" * dice.choice([10, 10**5]) + parts[-1][1]
        parts[-1] = (parts[-1][0], dice.choice([_flip, _splice])(dice.choice([parts[-1][1], deep]), dice), 0)
    else:  # forged
        wanted = [i for i, part in enumerate(parts) if part[0].endswith((".py", ".pkl", "byteorder", "version"))]
        one = dice.choice(wanted)
        name, content, compression = parts[one]
        parts[one] = (name, dice.choice([_flip, _splice])(content, dice), compression)
        parts = _resealed(parts)
    return kind, _write(parts)


FORGED = {"forged"}
KINDS = [
    *("flip", "flip in the directory", "cut", "splice", "sizes", "end", "swap", "double", "rename", "remove", "bomb"),
    *("content", "manifest", "manifest", "manifest", "manifest text", "forged", "forged"),
]


def _try(path: Path, cases: Any, expected: Any, forged: bool) -> str:
    import torch

    from runtime import ExportedModelError, load

    try:
        session = load(path)
        for case, answers in zip(cases, expected, strict=True):
            found = list(session(**case.inputs).values())
            same = len(found) == len(answers) and all(
                a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in zip(found, answers, strict=True)
            )
            if not same and not forged:
                return "WRONG SUCCESS"
    except ExportedModelError as error:
        return type(error).__name__ if "\n" not in str(error) else "WRONG: an error of several lines"
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return f"UNNAMED {type(error).__name__}: {str(error)[:200]}"
    return "loaded, same answers" if not forged else "loaded"


def work(pipe: Any, whole: bytes, folder: str, seed: int) -> None:
    """Answer indices with outcomes until the pipe is closed. An alarm that is not caught ends the process."""
    import torch

    from runtime import artifact, load
    from runtime.golden import parse_cases

    torch.set_num_threads(1)
    path = Path(folder) / f"{multiprocessing.current_process().pid}.pt"
    path.write_bytes(whole)
    session = load(path)
    cases = parse_cases(artifact.read_part(path, "golden.safetensors") or b"", "golden")
    expected = [list(session(**case.inputs).values()) for case in cases]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEGABYTES * 2**20,) * 2)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send((-1, "ready", 0.0, 0, ""))
    while (index := pipe.recv()) is not None:
        kind, data = mutate(whole, seed, index)
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        began = time.monotonic()
        outcome = _try(path, cases, expected, kind in FORGED)
        took = time.monotonic() - began
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send((index, outcome, took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start, kind))


def main() -> int:
    """Run the cases and print what came of them."""
    parser = argparse.ArgumentParser(description="Mutate an artifact and load it, many times.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, help="repeat one case, without limits, and keep its file in build/")
    parser.add_argument("--artifact", type=Path, help="a small plain artifact; left out: one is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = (options.artifact or _make(Path(folder))).read_bytes()
        if options.only is None:
            return _run(options, whole, folder)
    kind, data = mutate(whole, options.seed, options.only)
    path = ROOT / "build" / f"fuzz-{options.seed}-{options.only}.pt"
    path.write_bytes(data)
    print(kind, path, flush=True)
    from runtime import load

    load(path)
    return 0


def _make(folder: Path) -> Path:
    """A tiny classifier, exported as the tests do; the same each time, so that an index means the same."""
    from conftest import tiny_model

    from exporter import ExportRequest, export

    tiny_model("bert", "text-classification", num_labels=3).save_pretrained(folder / "model")
    output = folder / "tiny.pt"
    export(ExportRequest(model=str(folder / "model"), output=output, backend="plain", verify="quick"))
    return output


def _run(options: argparse.Namespace, whole: bytes, folder: str) -> int:
    context = multiprocessing.get_context("spawn")
    counts: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    slowest, peak, todo, began = (0.0, -1, ""), 0, iter(range(options.cases)), time.monotonic()
    workers: dict[Any, list[Any]] = {}

    def start() -> None:
        mine, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, whole, folder, options.seed), daemon=True)
        with away():
            process.start()
        theirs.close()
        workers[mine] = [process, -1]

    for _ in range(options.processes):
        start()
    while workers:
        for pipe in multiprocessing.connection.wait(list(workers)):
            process, current = workers[pipe]
            try:
                index, outcome, took, memory, kind = pipe.recv()  # type: ignore[union-attr]
            except (EOFError, ConnectionError):
                process.join()
                kind = mutate(whole, options.seed, current)[0]
                hang = process.exitcode == -signal.SIGALRM
                outcome = "HANG" if hang else f"CRASH (exit code {process.exitcode})"
                index, took, memory = current, SECONDS if hang else math.nan, 0
                del workers[pipe]
                start()
            if index >= 0:
                counts[outcome] += 1
                slowest, peak = max(slowest, (took, index, kind)), max(peak, memory)
                if outcome.startswith(("WRONG", "UNNAMED", "HANG", "CRASH")):
                    failures.append(f"seed {options.seed} case {index} ({kind}): {outcome}")
                    print(failures[-1], flush=True)
            if pipe in workers:
                workers[pipe][1] = following = next(todo, None)
                pipe.send(following)  # type: ignore[union-attr]
                if following is None:
                    del workers[pipe]
    for outcome, count in counts.most_common():
        print(f"{count:>7} {outcome}")
    print(f"slowest: {slowest[0]:.2f} s, case {slowest[1]} ({slowest[2]}); memory above start: {peak / 1024:.0f} MB")
    print(f"{sum(counts.values())} cases in {time.monotonic() - began:.0f} s, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    sys.exit(main())
