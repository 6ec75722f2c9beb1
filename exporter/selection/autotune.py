"""Time the candidates' files against each other at the shapes that the user cares about.

Each file runs in a process of its own, as it would in production. The processes take turns, round after round, so that
a slow moment of the machine affects all of them. Candidates are ranked by the geometric mean, over the shapes, of their
median times.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from exporter.config.request import Tune
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.subprocesses import allowing, worker
from runtime.errors import RequestError
from runtime.format.codec import to_json
from runtime.format.manifest import Manifest, Timing

# A draft must be this much faster than one before it in the list to be preferred: less is noise.
MARGIN = 0.02
# After the first round, a draft that is slower than the fastest by this factor is not timed further at that shape.
HOPELESS = 1.3
WARMUP_CALLS = 3
# Milliseconds that a block of calls should take, and how many blocks: for a model of the size of bert-base `short`
# takes seconds, `full` a minute or two.
_EFFORT: Mapping[Tune, tuple[float, int]] = {"short": (100.0, 3), "full": (400.0, 9)}
_BATCHES = (1, 8)


@dataclass(frozen=True)
class Draft:
    """A file to time: its name for people, its manifest, and the operators allowed in addition to the list."""

    name: str
    file: Path
    manifest: Manifest
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimedShape:
    """A shape to time: the size of each axis; `padded` as in `runtime.format.manifest.Timing`."""

    shape: dict[str, int]
    padded: bool = False


# Name of a draft → the median in milliseconds per shape. Drafts that failed are left out.
Times = Mapping[str, Sequence[float]]


def tune_shapes(plan: TracePlan, asked: Sequence[tuple[int, ...]], ragged: bool = False) -> list[TimedShape]:
    """The shapes to time: those asked for, with sizes in the order of the plan's axes; by default two usual ones.

    With `ragged` the default also has a batch of texts of different lengths, if the model takes texts with a mask.

    Raises:
        RequestError: a shape has the wrong number of sizes, or a size outside the verified range.
    """
    varying = [name for name, dimension in plan.dimensions.items() if name == "batch" or not dimension.fixed]
    if not asked:
        dimension = plan.dimensions["batch"]
        usual = [
            TimedShape(plan.example | {"batch": size}) for size in sorted({dimension.within(size) for size in _BATCHES})
        ]
        masked = plan.padded_axis == "sequence" and any(spec.name == "attention_mask" for spec in plan.inputs)
        return [*usual, *([TimedShape(usual[-1].shape, True)] if ragged and masked else [])]
    shapes = []
    for sizes in asked:
        shown = "x".join(map(str, sizes))
        if len(sizes) != len(varying):
            raise RequestError(f"the tune shape {shown}", f"sizes of {' x '.join(varying)}")
        for name, size in zip(varying, sizes, strict=True):
            dimension = plan.dimensions[name]
            if dimension.within(size) != size:
                axis = dimension.axis
                step = f", multiples of {axis.multiple}" if axis.multiple > 1 else ""
                raise RequestError(
                    f"the tune shape {shown}: {name} {size} is outside the verified range",
                    f"{name} from {axis.minimum} to {axis.maximum}{step}",
                )
        shapes.append(TimedShape(plan.example | dict(zip(varying, sizes, strict=True))))
    return shapes


def time_drafts(drafts: Sequence[Draft], shapes: Sequence[TimedShape], mode: Tune, threads: int) -> Times:
    """Time every draft at every shape, in turns; a draft that fails is left out.

    Args:
        drafts: their files lie in a folder that may be written to.
        shapes: to time them at.
        mode: how thorough.
        threads: of torch, in each process.

    Raises:
        OSError: the manifests cannot be written beside the drafts.
    """
    block, rounds = _EFFORT[mode]
    found: dict[str, list[float]] = {draft.name: [] for draft in drafts}
    with ExitStack() as stack:
        runners = {draft.name: stack.enter_context(_Runner(draft, threads)) for draft in drafts}
        for shape in shapes:
            for name in list(runners):
                if not runners[name].ask(shape, WARMUP_CALLS):
                    del runners[name], found[name]
            for name, median in _at(runners, shape, block, rounds).items():
                found[name].append(median)
    return {name: medians for name, medians in found.items() if len(medians) == len(shapes)}


def fastest_first(names: Sequence[str], times: Times) -> list[str]:
    """The names in the order to try: by speed, in the given order if two are equally fast; untimed ones last."""

    def score(name: str) -> float:
        return math.exp(statistics.fmean(math.log(milliseconds) for milliseconds in times[name]))

    left, order = [name for name in names if name in times], []
    while left:
        best = min(map(score, left))
        order.append(next(name for name in left if score(name) <= best * (1 + MARGIN)))
        left.remove(order[-1])
    return [*order, *(name for name in names if name not in times)]


def timings(
    order: Sequence[str], chosen: str, times: Times, shapes: Sequence[TimedShape], threads: int
) -> tuple[Timing, ...]:
    """The timings for the manifest of the chosen draft."""
    return tuple(
        Timing(name, name == chosen, dict(shape.shape), threads, milliseconds, shape.padded)
        for name in order
        for shape, milliseconds in zip(shapes, times.get(name, ()), strict=name in times)
    )


def _at(runners: Mapping[str, _Runner], shape: TimedShape, block: float, rounds: int) -> dict[str, float]:
    medians: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        best = min((min(found) for found in medians.values() if found), default=math.inf)
        for name, runner in runners.items():
            earlier = medians[name]
            if earlier and min(earlier) > HOPELESS * best:
                continue
            calls = max(1, min(100, round(block / earlier[0]))) if earlier else 1
            times = runner.ask(shape, calls)
            earlier.append(statistics.median(times) if times else math.inf)
    return {name: statistics.median(found) for name, found in medians.items() if math.isfinite(max(found))}


class _Runner:
    """A process that has loaded a draft and times it when asked (`runtime.verification.timing_worker`)."""

    def __init__(self, draft: Draft, threads: int) -> None:
        described = draft.file.with_suffix(".manifest")
        described.write_text(to_json(draft.manifest))
        files = ["--draft", str(draft.file), "--manifest", str(described), "--threads", str(threads)]
        self._process = subprocess.Popen(
            [*worker("runtime.verification.timing_worker"), *files, *allowing(draft.allow)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # Wait: drafts load one after the other, since loading takes more memory than the loaded model.
        self._alive = "ready" in self._read()

    def ask(self, shape: TimedShape, calls: int) -> list[float]:
        """Milliseconds of each call; none if the draft fails."""
        assert self._process.stdin is not None
        if not self._alive:
            return []
        try:
            self._process.stdin.write(json.dumps(dataclasses.asdict(shape) | {"calls": calls}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._alive = False
            return []
        found: list[float] = self._read().get("milliseconds", [])
        self._alive = bool(found)
        return found

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        value: dict[str, Any] = json.loads(line) if line else {}
        return value

    def __enter__(self) -> _Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
