"""One pair: build a tiny random model, export it, and check the artifact at shapes that the export did not verify.

Whatever happens becomes the result and reason of the pair's `Row`.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import runtime
from exporter import ExportRequest, export
from exporter.config.request import BackendChoice
from exporter.loading.loader import load_source
from exporter.pipeline import plan_and_adapt
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.test_shapes import Dimension
from exporter.shapes.trace_plan import TracePlan
from exporter.tracing.adapter import Adapter
from exporter.verification import verify
from exporter.verification.reference import repeated_at_padding
from runtime.errors import ExportedModelError
from runtime.format.golden import Case
from runtime.format.manifest import Axis, Manifest, Precision, Tolerance, ValueRange
from runtime.verification.compare import Comparison, compare, run_cases
from tests.model_matrix import zygote
from tests.model_matrix.pairs import Pair, all_pairs
from tests.model_matrix.tiny import tiny_model

Result = Literal["right", "narrowed", "plain", "beyond", "refused", "wrong", "no model", "out of time", "died"]
# Results of which an artifact is right at every shape that it declares, with operators that are faster than the trace.
SOUND = ("right", "narrowed")
PROBES = 3
# Probes of longer inputs would only cost time: the gate has tried the longest.
_LONGEST_PROBE = 400


@dataclass(frozen=True)
class Row:
    """What became of one pair.

    `right`: at every shape that the plan declared, with IPEX, oneDNN's operators or the project's own. `narrowed`: the
    same at every shape that the artifact declares, which are fewer. `plain`: right as the trace is, without any of
    these. `refused`: no artifact, with the reason.
    `wrong`: an artifact was written, and another shape than the gate's showed a wrong answer. `beyond`: the same, but
    by less than twice the tolerance, or in bf16 by less than twice the error of the original model in bf16, which is
    rounding; or in fp32 where the original in float64 answers as the file does. `no model`: there is no tiny model to
    try.
    Errors are the largest of all shapes and outputs, relative to eager fp32. `generated`, of a file that generates
    text: how many greedy tokens were compared with transformers' `generate` for each prompt, and how many were equal up
    to the first difference.
    """

    model_type: str
    task: str
    architecture: str
    kind: str
    result: Result
    reason: str = ""
    max_error: float | None = None
    seconds: float | None = None
    backend: str | None = None
    generated: str | None = None


def export_pair(pair: Pair, precision: Precision, folder: Path, backend: BackendChoice = "auto") -> Row:
    """Build and export; the artifact stands at `folder/model.pt` where one was written."""
    row = Row(pair.model_type, pair.task, pair.architecture, pair.kind, "no model")
    try:
        tiny_model(pair.model_type, pair.architecture).save_pretrained(folder)
    except Exception as error:  # noqa: BLE001 (constructors of hundreds of architectures, with guessed sizes)
        return dataclasses.replace(row, reason=line(error))
    start = time.perf_counter()
    try:
        report = export(_request(pair, precision, folder, backend))
    except ExportedModelError as error:
        return dataclasses.replace(row, result="refused", reason=line(error), seconds=time.perf_counter() - start)
    except Exception as error:  # noqa: BLE001 (a defect of the exporter: the table has to show it)
        return dataclasses.replace(row, result="died", reason=line(error), seconds=time.perf_counter() - start)
    excluded = [choice for choice in report.choices if choice.startswith(("excluded", "the model itself fails"))]
    plain = report.manifest.backend == "plain"
    narrowed = any(choice.startswith("excluded") for choice in excluded)
    failed = [choice for choice in report.choices if " failed: " in choice] if plain else []
    return dataclasses.replace(
        row,
        result="plain" if plain else "narrowed" if narrowed else "right",
        reason="; ".join([*failed, *excluded])[:400],
        max_error=max(point.max_error for point in report.manifest.verified),
        seconds=time.perf_counter() - start,
        backend=report.manifest.backend,
        generated=_generated(report.manifest),
    )


def _generated(manifest: Manifest) -> str | None:
    if manifest.generation is None or not manifest.generation.greedy:
        return None
    return ", ".join(f"{one.equal} of {one.tokens}" for one in manifest.generation.greedy)


@dataclass(frozen=True)
class _Probe:
    """A shape that the gate has not tried: size by axis, the real lengths of padded rows, and the inputs."""

    shape: dict[str, int]
    lengths: list[int] | None
    inputs: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
        return "x".join(map(str, self.shape.values()))


def probe_pair(pair: Pair, precision: Precision, folder: Path) -> tuple[Result, str]:
    """Compare the artifact with the original model at a few random shapes inside what it declares; and the reason."""
    request = _request(pair, precision, folder)
    source = load_source(request)
    plan, adapter = plan_and_adapt(source, request)
    manifest = runtime.read_manifest(folder / "model.pt")
    # As the artifact declares them, which may be fewer sizes than the plan did.
    axes = {axis.name: axis for spec in manifest.inputs for axis in spec.axes}
    whole = any(spec.values == ValueRange(1, 1) for spec in manifest.inputs if spec.name.endswith("mask"))
    chance = random.Random(pair.name)  # noqa: S311 (no secret)
    repeats = manifest.padded_output == "repeated"

    def answers(model: Adapter, probe: _Probe) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            found = {key: value.clone() for key, value in zip(model.outputs, model(**probe.inputs), strict=True)}
        repeated = repeated_at_padding(plan, probe.shape, probe.lengths, found) if repeats else None
        return found if repeated is None else repeated

    probes = []
    for number in range(PROBES):
        shape = {name: _size(chance, axes[name], plan.dimensions[name]) for name in plan.dimensions}
        lengths = None if whole else _lengths(chance, plan, shape)
        probes.append(_Probe(shape, lengths, make_inputs(plan, shape, lengths, seed=1000 + number).as_dict()))
    cases = []
    for probe in probes:
        # The model itself may not be able to answer here.
        with suppress(RuntimeError, ValueError, IndexError):
            cases.append(Case(probe.name, probe.inputs, answers(adapter, probe)))
    session = runtime.load(folder / "model.pt", warmup=False)
    try:
        bad = [comparison for comparison in run_cases(session, cases) if not comparison.within(manifest.tolerance)]
    except ExportedModelError as error:
        return "wrong", line(error)
    bounds = manifest.tolerance
    twice = Tolerance(2 * bounds.max_error, 2 * bounds.rms_error)
    failed = {one.case for one in bad}
    errors = "; ".join(f"{p.case} {p.output}: max error {p.max_error:.1e}, rms {p.rms_error:.1e}" for p in bad)
    if not bad:
        return "right", ""
    if all(one.within(twice) for one in bad):
        return "beyond", errors
    if precision == "fp32" and _exact_agrees(adapter, session, [probe for probe in probes if probe.name in failed]):
        return "beyond", f"{errors}; the original in float64 answers as the file does"
    if precision == "bf16":
        answered = {case.name for case in cases}
        narrow = adapter.bfloat16()
        own = {probe.name: answers(narrow, probe) for probe in probes if probe.name in answered}
        if all(one.within(_twice_the_rounding(one, cases, own)) for one in bad):
            return "beyond", f"{errors}; the original in bf16 is as far off"
    return "wrong", errors


def _exact_agrees(adapter: Adapter, session: runtime.Session, probes: Sequence[_Probe]) -> bool:
    """Whether the original in float64 answers as the file does, where it does not in float32.

    Models that rank (detectors choose the best places of an image) answer with another row where two are equal but for
    rounding.
    """
    exact = adapter.double()
    cases = []
    for probe in probes:
        inputs = {name: _in_float64(value) for name, value in probe.inputs.items()}
        try:
            with torch.no_grad():
                found = exact(**inputs)
        except RuntimeError:
            # Some models make numbers of float32 themselves.
            return False
        answers = {name: value.float() for name, value in zip(exact.outputs, found, strict=True)}
        cases.append(Case(probe.name, probe.inputs, answers))
    return all(one.within(session.manifest.tolerance) for one in run_cases(session, cases))


def _in_float64(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value


def _twice_the_rounding(
    one: Comparison, cases: Sequence[Case], own: Mapping[str, Mapping[str, torch.Tensor]]
) -> Tolerance:
    """Twice the errors of the original model in bf16, whose answers are `own`, in a case and output."""
    (expected,) = [case.outputs[one.output] for case in cases if case.name == one.case]
    found = compare(one.case, one.output, 1, own[one.case][one.output], expected)
    return Tolerance(2 * found.max_error, 2 * found.rms_error)


def quiet(gates: str) -> None:
    """One thread, no warnings, and gates forked from the zygote at that address: many pairs run beside each other."""
    verify._spawn = functools.partial(zygote.spawn, gates)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _request(pair: Pair, precision: Precision, folder: Path, backend: BackendChoice = "auto") -> ExportRequest:
    """With no task where the checkpoint itself tells it, which is how most users export."""
    told = sum(other.architecture == pair.architecture for other in all_pairs() if other.model_type == pair.model_type)
    return ExportRequest(
        str(folder),
        folder / "model.pt",
        task="auto" if told == 1 else pair.task,
        precision=precision,
        backend=backend,
        tune="off",
        force=True,
    )


def _size(chance: random.Random, axis: Axis, dimension: Dimension) -> int:
    declared = Dimension(axis, dimension.example)
    most = axis.maximum if axis.maximum is not None and axis.name != "batch" else 6
    most = min(most, max(_LONGEST_PROBE, axis.minimum)) if axis.name in ("sequence", "decoder_sequence") else most
    return declared.within(chance.randint(axis.minimum, max(axis.minimum, most)))


def _lengths(chance: random.Random, plan: TracePlan, shape: dict[str, int]) -> list[int] | None:
    if plan.padded_axis is None:
        return None
    size, least = shape[plan.padded_axis], plan.dimensions[plan.padded_axis].axis.minimum
    low = 1 if plan.dimensions[plan.padded_axis].fixed else min(least, size)
    return [size, *(chance.randint(low, size) for _ in range(shape["batch"] - 1))]


_FOLDERS = re.compile(r"/[\w./+-]*/(?:site-packages|coverage\.\w+)/")


def line(error: Any) -> str:
    """An error in one line for the table, without the folders of the machine that wrote it."""
    return _FOLDERS.sub("", " ".join(f"{type(error).__name__}: {error}".split()))[:400]
