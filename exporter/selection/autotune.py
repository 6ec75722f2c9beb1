"""Time the candidates' files against each other at the shapes that the user cares about.

Each file runs in a process of its own, as it would in production. The processes take turns, round after round, so that
a slow moment of the machine affects all of them. Candidates are ranked by the geometric mean, over the shapes, of their
median times.

All of it ends after a fixed time, however busy the machine is. What was timed by then decides. `Tuning.doubts` says
where that is little, or where the rounds contradict each other.
"""

from __future__ import annotations

import dataclasses
import json
import math
import queue
import statistics
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
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
# If the first call takes as many milliseconds, it is the only one that does not count, unless TorchScript optimises the
# draft in the second.
SLOW = 1000.0
# Milliseconds that a block of calls should take, and how many blocks: for a model of the size of bert-base `short`
# takes seconds, `full` a minute or two.
_EFFORT: Mapping[Tune, tuple[float, int]] = {"short": (100.0, 3), "full": (400.0, 9)}
# Seconds that all of it may take. Loading the drafts may take the first part of them: those that are not loaded by then
# are not timed.
LONGEST: Mapping[Tune, float] = {"off": 0.0, "short": 25.0, "full": 240.0}
_LOADING = 0.6
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


# Name of a draft → the median in milliseconds per shape. Drafts that were not timed are left out.
Times = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Tuning:
    """What was measured: the shapes that every draft in `times` was timed at, and what makes the order doubtful."""

    shapes: Sequence[TimedShape]
    times: Times
    doubts: tuple[str, ...] = ()


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


def time_drafts(drafts: Sequence[Draft], shapes: Sequence[TimedShape], mode: Tune, threads: int) -> Tuning:
    """Time every draft at every shape, in turns, for at most `LONGEST[mode]` seconds; a draft that fails is left out.

    Args:
        drafts: their files lie in a folder that may be written to.
        shapes: to time them at.
        mode: how thorough.
        threads: of torch, in each process.

    Raises:
        OSError: the manifests cannot be written beside the drafts.
    """
    start, longest = monotonic(), LONGEST[mode]
    with ExitStack() as stack:
        runners = [stack.enter_context(_Runner(draft, threads)) for draft in drafts]
        late = _load(runners, start + _LOADING * longest)
        rounds = _Rounds([runner for runner in runners if runner.alive], shapes, *_EFFORT[mode])
        try:
            rounds.measure(start + longest)
        except _TimeIsUpError:
            late.append(f"timing ended after {longest:.0f} s, with {rounds.done} of {rounds.wanted} rounds")
    return rounds.result(late)


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


def _load(runners: Sequence[_Runner], deadline: float) -> list[str]:
    """Load the drafts, one after the other, since loading takes more memory than the loaded model.

    Returns:
        What was not loaded in time.
    """
    for number, runner in enumerate(runners):
        try:
            runner.load(deadline)
        except _TimeIsUpError:
            names = [late.name for late in runners[number:]]
            for late in runners[number:]:
                late.alive = False
            return [f"not timed, because loading took too long: {', '.join(names)}"]
    return []


class _Rounds:
    """Blocks of calls in turns: shape after shape in each round, so that each has been timed when time is up."""

    def __init__(self, runners: Sequence[_Runner], shapes: Sequence[TimedShape], block: float, wanted: int) -> None:
        self.wanted = wanted
        self.done = 0
        self._runners = runners
        self._shapes = shapes
        self._block = block
        # Per shape and draft, the median of each block.
        self._found: list[dict[str, list[float]]] = [{runner.name: [] for runner in runners} for _ in shapes]

    def measure(self, deadline: float) -> None:
        """All rounds.

        Raises:
            _TimeIsUpError: at the deadline; what was measured stays.
        """
        for _ in range(self.wanted):
            for shape, found in zip(self._shapes, self._found, strict=True):
                self._turn(shape, found, deadline)
            self.done += 1

    def _turn(self, shape: TimedShape, found: dict[str, list[float]], deadline: float) -> None:
        """One block of each draft at one shape; the first time after some calls that do not count."""
        best = min((min(blocks) for blocks in found.values() if blocks), default=math.inf)
        for runner in [runner for runner in self._runners if runner.alive]:
            earlier = found[runner.name]
            if earlier and min(earlier) > HOPELESS * best:
                continue
            if not earlier and not runner.warm_up(shape, deadline):
                continue
            calls = max(1, min(100, round(self._block / earlier[0]))) if earlier else 1
            if times := runner.ask(shape, calls, deadline):
                earlier.append(statistics.median(times))

    def result(self, doubts: Sequence[str]) -> Tuning:
        """The medians at the shapes that every draft was timed at."""
        alive = [runner.name for runner in self._runners if runner.alive]
        complete = [number for number, found in enumerate(self._found) if all(found[name] for name in alive)]
        if not complete or not alive:
            return Tuning((), {}, tuple(doubts))
        times = {name: [statistics.median(self._found[number][name]) for number in complete] for name in alive}
        shapes = [self._shapes[number] for number in complete]
        return Tuning(shapes, times, (*doubts, *self._contradictions(times, complete)))

    def _contradictions(self, times: Times, complete: Sequence[int]) -> list[str]:
        """The drafts that were faster than the fastest one in some round: noise hides which one is."""
        best = fastest_first(list(times), times)[0]
        told = []
        for name in times:
            pairs = [
                list(zip(self._found[number][name], self._found[number][best], strict=False)) for number in complete
            ]
            shares = [
                math.exp(statistics.fmean(math.log(one / other) for one, other in turn))
                for turn in zip(*pairs, strict=False)
            ]
            if name != best and len(shares) > 1 and min(shares) < 1 - MARGIN and max(shares) > 1 + MARGIN:
                told.append(
                    f"the machine was too noisy to judge: {name} took {min(shares):.2f} to {max(shares):.2f} of the "
                    f"time of {best}, from round to round"
                )
        return told


class _TimeIsUpError(Exception):
    """The deadline has passed."""


class _Runner:
    """A process that loads a draft and times it when asked (`runtime.verification.timing_worker`)."""

    def __init__(self, draft: Draft, threads: int) -> None:
        self.name = draft.name
        # Whether the draft has not failed.
        self.alive = True
        self._optimised = draft.manifest.execution.optimized_execution
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
        # "" at the end.
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def load(self, deadline: float) -> None:
        """Load the draft.

        Raises:
            _TimeIsUpError: it is not loaded at the deadline.
        """
        self.alive = "ready" in self._answer({"load": True}, deadline)

    def ask(self, shape: TimedShape, calls: int, deadline: float) -> list[float]:
        """Milliseconds of each call; none if the draft fails.

        Raises:
            _TimeIsUpError: there is no answer at the deadline.
        """
        answer = self._answer(dataclasses.asdict(shape) | {"calls": calls}, deadline)
        found: list[float] = answer.get("milliseconds", [])
        self.alive = bool(found)
        return found

    def warm_up(self, shape: TimedShape, deadline: float) -> bool:
        """Call it without counting; whether it did not fail. Raises as `ask`."""
        first = self.ask(shape, 1, deadline)
        enough = bool(first) and first[0] > SLOW and not self._optimised
        return enough or (bool(first) and bool(self.ask(shape, WARMUP_CALLS - 1, deadline)))

    def _answer(self, request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
        except BrokenPipeError:
            return {}
        except queue.Empty:
            raise _TimeIsUpError from None
        value: dict[str, Any] = json.loads(line) if line else {}
        return value

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def __enter__(self) -> _Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        # Its output has ended, unless a child of its own still has it.
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
