"""Choosing by measuring: what is timed, in which order candidates are tried, what the artifact says of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exporter import ExportRequest, export
from exporter.backends import candidates
from exporter.backends.candidates import list_candidates
from exporter.loading.loader import load_source
from exporter.selection import autotune
from exporter.selection.autotune import Draft, TimedShape, Tuning, fastest_first, time_drafts, tune_shapes
from exporter.shapes.trace_plan import TracePlan, make_plan
from runtime import load, read_manifest
from runtime.errors import RequestError
from runtime.host.native_library import VARIABLE
from runtime.host.requirements import Environment
from tests.conftest import BIN, run

WITH_IPEX, AFTER_IPEX = Environment("2.8.0", "2.8.0", None), Environment("2.13.0", None, None)


def names(*arguments: Any) -> list[tuple[str, bool]]:
    return [
        (way.name.replace(" with ", " ").removesuffix(" attention"), way.timed)
        for way in list_candidates(*arguments, "fp32", "keep")  # type: ignore[call-arg]
    ]


@pytest.fixture
def native_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the library of native operators had been built."""
    monkeypatch.setattr(candidates, "native_problem", lambda _: None)


@pytest.mark.usefixtures("native_here")
def test_what_competes() -> None:
    """The short form compares backends; the full one the forms of attention too; off goes by the list."""
    assert names("auto", WITH_IPEX, "short") == [
        ("ipex eager", True),
        ("ipex sdpa", False),
        ("onednn eager", True),
        ("native eager", True),
        ("plain eager", True),
    ]
    assert names("auto", WITH_IPEX, "off") == [(name, False) for name, _ in names("auto", WITH_IPEX, "short")]
    assert [name for name, timed in names("auto", WITH_IPEX, "full") if timed] == [
        f"{backend} {attention}" for backend in ("ipex", "onednn", "native", "plain") for attention in ("eager", "sdpa")
    ]
    assert names("auto", AFTER_IPEX, "short") == [
        ("onednn eager", True),
        ("onednn sdpa", False),
        ("native eager", True),
        ("plain eager", True),
    ]


@pytest.mark.usefixtures("native_here")
@pytest.mark.parametrize("environment", [WITH_IPEX, AFTER_IPEX])
def test_stock_leaves_out_what_needs_more_than_torch(environment: Environment) -> None:
    assert names("stock", environment, "short") == [
        ("onednn eager", True),
        ("onednn sdpa", False),
        ("plain eager", True),
    ]


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.so"))
    assert [name for name, _ in names("auto", AFTER_IPEX, "short")] == ["onednn eager", "onednn sdpa", "plain eager"]
    left = candidates.left_out("auto", AFTER_IPEX)
    assert [line.split(":")[0] for line in left] == ["ipex not tried", "native not tried"]
    assert left[1].endswith("absent.so does not exist")
    old = Environment("1.13.1", None, None)
    assert candidates.left_out("auto", old)[1:] == [
        "onednn not tried: torch 1.13.1 is installed",
        "native not tried: torch 1.13.1 is installed",
    ]
    assert candidates.left_out("stock", AFTER_IPEX) == []


@pytest.mark.usefixtures("native_here")
def test_int8_competes_where_it_can_be_computed() -> None:
    """IPEX, onednn and the native operators; the plain trace has no int8."""
    ways = [(way.backend.name, way.timed) for way in list_candidates("auto", WITH_IPEX, "short", "int8", "drop")]
    assert ways == [("ipex", True), ("ipex", False), ("onednn", True), ("native", True)]
    names = [way.backend.name for way in list_candidates("auto", AFTER_IPEX, "short", "int8", "drop")]
    assert names == ["onednn", "onednn", "native"]


def test_an_explicit_backend_has_one_way_unless_tuning_is_full() -> None:
    for mode in ("off", "short"):
        assert names("onednn", AFTER_IPEX, mode) == [("onednn eager", False)]
    assert names("onednn", AFTER_IPEX, "full") == [("onednn eager", True), ("onednn sdpa", True)]


def test_the_order() -> None:
    """By the geometric mean; within two per cent the earlier one, whose times the noise moved; failed ones last."""
    times = {"a": [10.0, 100.0], "b": [9.9, 100.0], "c": [5.0, 150.0], "d": [20.0, 20.0]}
    assert fastest_first(["a", "b", "c", "d", "e"], times) == ["d", "c", "a", "b", "e"]
    assert fastest_first(["b", "a"], times) == ["b", "a"]


@pytest.fixture(scope="module")
def plan(tiny_folder: Callable[..., Path]) -> TracePlan:
    request = ExportRequest(str(tiny_folder()), "unused.pt")
    return make_plan(load_source(request), request)


def test_the_shapes(plan: TracePlan) -> None:
    usual = [TimedShape({"batch": 1, "sequence": 128}), TimedShape({"batch": 8, "sequence": 128})]
    assert tune_shapes(plan, ()) == usual
    assert tune_shapes(plan, (), ragged=True) == [*usual, TimedShape({"batch": 8, "sequence": 128}, padded=True)]
    assert tune_shapes(plan, ((3, 17),), ragged=True) == [TimedShape({"batch": 3, "sequence": 17})]


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (
            (1, 513),
            r"the tune shape 1x513: sequence 513 is outside the verified range; expected sequence from 1 to 512",
        ),
        ((0, 8), r"batch 0 is outside"),
        ((8,), r"the tune shape 8; expected sizes of batch x sequence"),
        ((1, 8, 8), r"expected sizes of batch x sequence"),
    ],
)
def test_shapes_that_cannot_be(plan: TracePlan, shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(RequestError, match=found):
        tune_shapes(plan, (shape,))


def test_a_draft_that_fails_has_no_times(tiny_artifact: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_artifact)
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    whole.write_bytes(tiny_artifact.read_bytes())
    cut.write_bytes(tiny_artifact.read_bytes()[:1000])
    # Declares fewer inputs than its code takes: loads, and fails when called.
    odd = dataclasses.replace(manifest, inputs=manifest.inputs[:1])
    drafts = [Draft("cut", cut, manifest), Draft("whole", whole, manifest)]
    (tmp_path / "odd.pt").write_bytes(tiny_artifact.read_bytes())
    drafts.append(Draft("odd", tmp_path / "odd.pt", odd))
    shapes = [TimedShape({"batch": 2, "sequence": 8}, padded=True)]
    tuned = time_drafts(drafts, shapes, "short", torch.get_num_threads())
    assert list(tuned.times) == ["whole"] and tuned.times["whole"][0] > 0
    assert (tuned.shapes, tuned.doubts) == (shapes, ())


@pytest.mark.parametrize("budget", [0.0, 2.0])
def test_timing_ends_in_time(
    budget: float, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the rounds would take; what was timed by then counts, and the result says how much that was."""
    manifest = read_manifest(tiny_artifact)
    drafts = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.pt").write_bytes(tiny_artifact.read_bytes())
        drafts.append(Draft(name, tmp_path / f"{name}.pt", manifest))
    monkeypatch.setitem(autotune.LONGEST, "short", budget)
    monkeypatch.setitem(autotune._EFFORT, "short", (5000.0, 100))
    start = monotonic()
    tuned = time_drafts(drafts, [TimedShape({"batch": 2, "sequence": 8})], "short", 1)
    # Processes are started and ended besides.
    assert monotonic() - start < budget + 5
    assert tuned.doubts
    if not tuned.times:
        assert "not timed, because loading took too long: one, two" in tuned.doubts[0]
    else:
        assert re.match(r"timing ended after 2 s, with \d+ of 100 rounds", tuned.doubts[0])


def test_rounds_that_contradict_each_other() -> None:
    """In one round a draft is slower than the fastest one, in another faster: noise, which is said."""
    runners: Any = [SimpleNamespace(name=name, alive=True) for name in ("one", "two", "three")]
    rounds = autotune._Rounds(runners, [TimedShape({"batch": 1})], 100.0, 3)
    rounds._found = [{"one": [10.0, 10.0, 10.0], "two": [8.0, 13.0, 10.4], "three": [11.0, 10.9, 11.5]}]
    tuned = rounds.result([])
    assert fastest_first(list(tuned.times), tuned.times) == ["one", "two", "three"]
    assert tuned.doubts == (
        "the machine was too noisy to judge: two took 0.80 to 1.30 of the time of one, from round to round",
    )


def test_the_fastest_that_is_right_ships(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong one may be as fast as it likes; the artifact has the times of all, and says which it is."""
    from exporter.backends.onednn.backend import OnednnBackend
    from exporter.selection import candidate_search

    wrong = {"onednn with eager attention, padding dropped": [0.1]}
    measure = candidate_search.time_drafts  # type: ignore[attr-defined]

    def measured(*arguments: Any) -> Tuning:
        tuned: Tuning = measure(*arguments)
        return dataclasses.replace(tuned, times={**tuned.times, **wrong})

    monkeypatch.setattr(candidate_search, "time_drafts", measured)
    monkeypatch.setattr(OnednnBackend, "optimise", lambda _self, module, _precision: _Doubled(module).eval())
    output = tmp_path / "m.pt"
    report = export(ExportRequest(str(tiny_folder()), output, tune_shapes=((2, 16),)))
    failed = "onednn with eager attention, padding dropped failed: the written file is wrong"
    assert any(choice.startswith(failed) for choice in report.choices)
    (chosen,) = [timing for timing in report.manifest.timings if timing.chosen]
    assert chosen.candidate.split()[0] == report.manifest.backend != "onednn"
    assert all(timing.shape == {"batch": 2, "sequence": 16} for timing in report.manifest.timings)
    shown = run([BIN / "run-model", "inspect", output]).stdout
    assert f"{chosen.candidate}: {chosen.milliseconds:.2f} ms at 2x16, {chosen.threads} threads (this file)" in shown
    assert "onednn with eager attention, padding dropped: 0.10 ms at 2x16\n" in shown


class _Doubled(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return tuple(2 * answer for answer in self.inner(input_ids, attention_mask, token_type_ids))


def test_full_tuning_of_one_backend(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    command = [BIN / "export-model", tiny_folder(), "--backend", "plain", "--tune", "full", "--tune-shapes", "1x8,2x8"]
    done = run([*command, "-o", output])
    assert (done.returncode, done.stderr) == (0, "")
    timings = read_manifest(output).timings
    assert {timing.candidate for timing in timings} == {"plain with eager attention", "plain with sdpa attention"}
    assert {(timing.shape["batch"], timing.shape["sequence"]) for timing in timings} == {(1, 8), (2, 8)}
    assert load(output)(input_ids=torch.tensor([[5, 6, 7]]))["logits"].shape == (1, 2)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--tune-shapes", "1x"], "'1x' is not a list of shapes such as 1x128,8x128"),
        (["--tune-shapes", "1x8", "--tune", "off"], "tune_shapes is given and tune is off"),
        (["--tune-shapes", "1x600", "--tune", "full"], "sequence 600 is outside the verified range"),
    ],
)
def test_a_wrong_command_line(flags: list[str], found: str, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    done = run([BIN / "export-model", tiny_folder(), *flags, "-o", tmp_path / "m.pt"])
    assert done.returncode == 2 and found in done.stderr
    assert list(tmp_path.iterdir()) == []
