"""The benchmark under LoadGen: what is asked, who is told which answer, how rates are searched, how targets are judged.

Without LoadGen and without models: what the engines call is here a list, or sleeps.
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest

from benchmarks.harness.charts import svg
from benchmarks.loadgen import samples, summary
from benchmarks.loadgen.__main__ import options_of
from benchmarks.loadgen.check import is_right, judge
from benchmarks.loadgen.markdown import markdown
from benchmarks.loadgen.measure import SCENARIOS, measure
from benchmarks.loadgen.picture import picture
from benchmarks.loadgen.queueing import Query, Queue, longest_first
from benchmarks.loadgen.search import RateSearch
from benchmarks.loadgen.systems import LAYOUTS, SYSTEMS, choose_systems, strategies
from exporter.verification.subprocesses import python


def test_lengths_are_seeded_and_two_fifths_of_the_longest() -> None:
    drawn = samples.lengths()
    assert (drawn == samples.lengths()).all()
    assert (drawn != samples.lengths(seed=samples.SEED + 1)).any()
    assert drawn.min() >= samples.SHORTEST and drawn.max() <= samples.LONGEST == 128
    assert 0.38 <= drawn.mean() / samples.LONGEST <= 0.42
    # Ragged, not two lengths whose mean is right.
    assert len(set(drawn)) > 50


def test_samples_have_their_lengths_and_the_batch_its_masks() -> None:
    rows = samples.samples()
    assert [row["input_ids"].shape for row in rows] == [(1, length) for length in samples.lengths()]
    assert all(row["attention_mask"].all() for row in rows)
    assert all((one["input_ids"] == two["input_ids"]).all() for one, two in zip(rows, samples.samples(), strict=True))
    batch = samples.ragged()
    assert batch["input_ids"].shape == (8, 128)
    assert batch["attention_mask"].sum(1).tolist() == [128, 20, 35, 50, 64, 12, 90, 40]
    assert not batch["input_ids"][batch["attention_mask"] == 0].any()


def test_a_batch_is_padded_to_its_longest_or_to_the_bucket() -> None:
    rows = [{"input_ids": numpy.full((1, length), length)} for length in (3, 17, 5)]
    assert samples.padded(rows, [2, 0])["input_ids"].tolist() == [[5] * 5, [3, 3, 3, 0, 0]]
    assert samples.padded(rows, [1, 0], 16)["input_ids"].shape == (2, 32)


def taken(lengths: list[int], budget: int | None) -> list[list[int]]:
    """The numbers of the queries in each batch, all of them queued from the beginning."""
    queue = Queue(budget)
    for number, length in enumerate(lengths):
        queue.put(Query(number, length, lambda _: None))
    queue.close()
    return [[query.number for query in batch] for batch in iter(queue.take, [])]


@pytest.mark.parametrize("budget", [None, 1, 64, 300, 5000])
def test_batches_keep_the_budget_and_begin_with_the_oldest(budget: int | None) -> None:
    lengths = [int(length) for length in samples.lengths()]
    left = list(range(len(lengths)))
    for batch in taken(lengths, budget):
        assert batch[0] == left[0]
        assert len(batch) == 1 or (budget is not None and len(batch) * max(lengths[one] for one in batch) <= budget)
        left = [number for number in left if number not in batch]
    assert left == []


def test_batches_hold_the_nearest_lengths() -> None:
    assert taken([50, 10, 128, 49, 52], 160) == [[0, 3, 4], [1], [2]]


def test_the_queue_of_the_peers_needs_no_torch() -> None:
    """Their environment has none."""
    code = "from benchmarks.loadgen import queueing; queueing.Queue(64)"
    done = subprocess.run(python(code, absent=("torch",)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_longest_come_first() -> None:
    assert longest_first([3, 9, 5, 9]) == [1, 3, 2, 0]


def test_what_was_measured_is_kept_after_each_scenario() -> None:
    kept: list[Any] = []
    measure([], SCENARIOS, 1, 1, kept.append)
    assert len(kept) == len(["trials", "offline", "server", "single-stream"])


class Echo:
    """A service whose answer to a sample is its number, from two threads, in batches."""

    def __init__(self, lengths: list[int], max_tokens: int | None) -> None:
        self.batches: list[list[int]] = []
        self._lengths, self._queue = lengths, Queue(max_tokens)
        self._threads = [threading.Thread(target=self._work) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def submit(self, number: int, done: Callable[[Any], None]) -> None:
        self._queue.put(Query(number, self._lengths[number], done))

    def close(self) -> None:
        self._queue.close()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._queue.take():
            self.batches.append([query.number for query in batch])
            for query in batch:
                query.done(query.number)


@pytest.mark.parametrize("max_tokens", [None, 256, 1024])
@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_each_query_gets_its_own_answer(scenario: str, max_tokens: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted, batched and answered out of order: LoadGen's numbers come back with the samples they asked for."""
    # Installed with the benchmark's environments, and needed by none of this but for the last step, which is replaced.
    pytest.importorskip("mlperf_loadgen")
    from benchmarks.loadgen import mlperf, worker

    told: dict[int, int] = {}
    monkeypatch.setattr(mlperf, "complete", lambda identifier, answer: told.update({identifier: answer}))
    lengths = [int(length) for length in samples.lengths()]
    asked = [(1000 + place, number) for place, number in enumerate(random.Random(3).choices(range(256), k=600))]
    service = Echo(lengths, max_tokens)
    (worker.offline(service, lengths) if scenario == "offline" else worker.server(service))(asked)
    service.close()
    assert told == dict(asked)
    assert sum(map(len, service.batches)) == 600
    if max_tokens is None:
        assert all(len(batch) == 1 for batch in service.batches)


def searched(limit: float, **options: Any) -> RateSearch:
    search = RateSearch(options.pop("first", 50.0), **options)
    while (rate := search.next()) is not None:
        search.record(rate, rate <= limit)
    return search


@pytest.mark.parametrize("limit", [20.0, 49.0, 50.0, 51.0, 77.0, 140.0])
def test_the_search_finds_the_highest_rate(limit: float) -> None:
    search = searched(limit, most=20)
    assert search.best is not None and limit / 1.02 <= search.best <= limit
    # Near the guess it takes few tries: each is some twenty seconds of every system.
    assert len(search.tried) <= (6 if 40 <= limit <= 60 else 10)


def test_the_search_ends() -> None:
    assert searched(0.0, most=5).best is None
    endless = searched(1e9, most=5)
    assert len(endless.tried) == 5 and endless.best == pytest.approx(50 * 1.15 ** (1 + 2 + 3 + 4))


def test_a_rate_that_held_above_one_that_did_not_counts_for_nothing() -> None:
    search = RateSearch(10.0)
    for rate, held in ((10.0, True), (11.0, False), (12.0, True)):
        search.record(rate, held)
    assert search.best == 10.0


def test_one_answer_to_the_wrong_query_is_wrong() -> None:
    generator = numpy.random.default_rng(0)
    right = [generator.standard_normal((1, 2)) for _ in range(256)]
    assert is_right(judge([row + 0.01 for row in right], right), "bf16")
    assert not is_right(judge([row + 0.01 for row in right], right), "fp32")
    swapped = [right[1], right[0], *right[2:]]
    # All together look right: so each is judged by itself.
    assert judge(swapped, right)["rms_error"] < 0.15 and not is_right(judge(swapped, right), "bf16")
    assert not is_right(judge([row * numpy.nan for row in right], right), "bf16")


def served(kind: str, offline: float, rate: float | None, precision: str = "bf16") -> dict[str, Any]:
    name = "2x1, one by one"
    trial = {"right": True, "rms_error": 0.01, "worst": 0.03, "samples_per_second": offline}
    run = {
        "rate": rate or 1.0,
        "p50_ms": 90.0,
        "p99_ms": 480.0,
        "queries": 700,
        "valid": True,
        "held": rate is not None,
    }
    return {
        "kind": kind,
        "precision": precision,
        "about": "",
        "status": "timed",
        "trials": {name: trial},
        "offline": {"strategy": name, "runs": [{"samples_per_second": value} for value in (offline, 1.0, 9999.0)]},
        "server": {"strategy": name, "runs": [run], "trials": {name: run}, "best_rate": rate},
        "single-stream": {"strategy": name, "runs": [{"p90_ms": 21.0}]},
    }


def result(**systems: dict[str, Any]) -> dict[str, Any]:
    def timed(value: float) -> dict[str, Any]:
        return {"status": "timed", "blocks_ms": [value, value + 1, value - 1]}

    missing = {"status": "missing", "reason": "out of memory"}
    return {
        "machine": "2 cores, a processor",
        "system": "Linux",
        "versions": {"torch": "2.8.0"},
        "settings": {"seconds": 8.0, "rounds": 3, "latency_ms": 500.0},
        "model": "BERT",
        "lengths": {
            "count": 256,
            "least": 8,
            "most": 128,
            "mean": 51.0,
            "longest": 128,
            "share": 0.4,
            "about": "seeded",
        },
        "ragged": "128, 20",
        "systems": systems,
        "batches": {
            "ragged": {"onednn": timed(60.0), "ipex": timed(90.0), "openvino": timed(100.0)},
            "full": {"onednn": timed(100.0), "onednn-keep": missing, "openvino": timed(99.0)},
        },
        "method": ["Turns."],
        "left_out": ["Tokenising."],
    }


def verdicts(given: dict[str, Any]) -> dict[str, str]:
    """The last cell of each line of the targets' table, by its first."""
    lines = markdown(given).partition("## Targets")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[-1] for row in cells[2:]}


def test_targets_compare_the_best_of_ours_with_the_best_peer() -> None:
    given = result(
        onednn=served("ours", 70.0, 58.0),
        ipex=served("ours", 60.0, 59.0),
        openvino=served("peer", 60.0, 52.0),
        onnxruntime=served("peer", 30.0, 25.0, "fp32"),
    )
    found = verdicts(given)
    # 70 / 60 of medians; 59 / 52; 60 / 100.
    assert found["Offline, samples a second, ours / best peer"] == "reached"
    assert found["Server, highest rate, ours / best peer"] == "**missed** at 1 of 1"
    assert "- Server, highest rate, ours / best peer: ipex / openvino 1.135, by 1.3%" in markdown(given).splitlines()
    assert found["ragged batch, ours / best peer"] == "reached"
    assert found["full batch, padding dropped / kept"] == "not measured"
    assert "onednn-keep, missing: out of memory" in markdown(given)
    given["batches"]["full"]["onednn-keep"] = {"status": "timed", "blocks_ms": [95.0]}
    assert verdicts(given)["full batch, padding dropped / kept"] == "**missed** at 1 of 1"
    assert "- full batch, padding dropped / kept: onednn / onednn-keep 1.053, by 2.2%" in markdown(given).splitlines()


def test_who_held_no_rate_or_failed_is_no_best() -> None:
    failed = served("peer", 90.0, None) | {"status": "failed", "reason": "it ended"}
    given = result(onednn=served("ours", 70.0, 58.0), openvino=failed)
    assert verdicts(given)["Server, highest rate, ours / best peer"] == "not measured"
    assert summary.server_of(failed) is None and "openvino, failed: it ended" in markdown(given)


def test_what_was_not_asked_is_a_dash() -> None:
    bare = {"kind": "ours", "precision": "bf16", "about": "", "status": "timed", "trials": {}}
    page = markdown(result(onednn=bare) | {"batches": {}})
    line = next(line for line in page.splitlines() if line.startswith("| onednn, bf16"))
    assert [cell.strip() for cell in line.strip("|").split("|")[1:]] == ["–"] * 5
    assert page.count("Not measured.") == 4


def test_the_picture_has_a_bar_a_system_and_scenario() -> None:
    drawn = svg(picture(result(onednn=served("ours", 70.0, 58.0), openvino=served("peer", 60.0, None))))
    root = ElementTree.fromstring(drawn)
    bars = [group.get("id", "") for group in root.iter("{http://www.w3.org/2000/svg}g")]
    assert [name for name in bars if "/" in name] == [
        "Offline: samples a second/onednn, bf16",
        "Offline: samples a second/openvino, bf16",
        "Server: queries a second at p99 of 500 ms/onednn, bf16",
    ]
    words = [str(text.text) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if "one by one" in word] == [
        "70.0  (2x1, one by one)",
        "60.0  (2x1, one by one)",
        "58.0  (2x1, one by one)",
    ]


def test_every_system_may_serve_batch_one_and_batches() -> None:
    for system in SYSTEMS.values():
        for layout in LAYOUTS:
            budgets = {strategy.max_tokens for strategy in strategies(system, layout)}
            assert None in budgets and len(budgets) > 1
            names = [strategy.name for strategy in strategies(system, layout)]
            assert len(set(names)) == len(names)


@pytest.mark.parametrize("arguments", [["--systems", "tensorrt"], ["--scenarios", "MultiStream"], ["--rounds", "0"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of(arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_processor_without_bf16_compares_all_in_fp32() -> None:
    assert {system.precision for system in choose_systems([], "fp32")} == {"fp32"}
    assert [system.precision for system in choose_systems(["openvino", "onnxruntime"])] == ["bf16", "fp32"]
