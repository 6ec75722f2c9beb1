"""The benchmark of generation: what a reader of generate.md sees from a small generate.json; how tokens are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.generate import rows, store
from benchmarks.generate.__main__ import options_of, report
from benchmarks.generate.contenders import RefusedError, Written
from benchmarks.generate.contenders.eager import writers
from benchmarks.generate.markdown import markdown
from benchmarks.generate.picture import picture
from benchmarks.generate.rows import CONTENDERS, MODELS, Job, Row, Settings, choose_contenders, choose_rows
from benchmarks.generate.worker import speed_of, too_few
from benchmarks.harness import places
from benchmarks.harness.charts import svg
from benchmarks.harness.rows import UnknownNameError
from tests.test_bench_speed import cells

SVG = "{http://www.w3.org/2000/svg}"


def timed(tokens: float, long: float = 500.0, together: float = 100.0, **more: Any) -> dict[str, Any]:
    entry = {"status": "timed", "run": "a", "variant": "as it is", "equal": 32, "equal_together": [32] * 7 + [30]}
    # One slow round, as another program may cause, changes nothing.
    figures = {"tokens": tokens, "prompt_ms": 100.0, "long_prompt_ms": long, "tokens_together": together}
    return entry | {name: [value, value, value / 50] for name, value in figures.items()} | more


def row(precision: str = "bf16", model: str = "qwen05", **contenders: dict[str, Any]) -> dict[str, Any]:
    memory = {"status": "timed", "run": "a", "variant": "reads", "bytes_per_s": [2e10] * 3}
    sizes = {"weights": 10**9, "cache_per_token": 12288}
    made = {"model": model, "precision": precision, "sizes": sizes, "starts": {}}
    return made | {"contenders": contenders | {"memory": memory}}


def result(*found: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": "2 cores, a processor",
        "system": "Linux",
        "versions": {"torch": "2.8.0", "xllamacpp": "1"},
        "converters": {"nncf": "3.4.0"},
        "settings": {"rounds": 3, "threads": 2},
        "models": {name: model.about for name, model in MODELS.items()},
        "contenders": {one.name: {"kind": one.kind, "about": one.about} for one in CONTENDERS.values()},
        "method": ["Rounds."],
        "left_out": ["Tokenising."],
        "rows": list(found),
    }


def test_a_row_has_medians_and_its_share_of_the_memorys_speed() -> None:
    page = markdown(result(row(native=timed(15.0), openvino=timed(12.0), llamacpp=timed(14.0, together=150.0))))
    ours = cells(page, "", "native")
    assert (ours["tokens/s"], ours["share"], ours["equal of 32"]) == ("**15.0**", "75%", "32 (30)")
    assert cells(page, "", "openvino")["tokens/s"] == "12.0"
    assert cells(page, "", "llamacpp")["8 rows, tokens/s"] == "**150.0**"
    assert "memory was read at 20.0 GB per second" in page


def test_what_was_refused_or_wrong_has_its_reason_and_no_figures() -> None:
    refused = {"status": "missing", "reason": "CTranslate2 has float32 on this processor", "run": "a"}
    wrong = timed(99.0) | {"status": "wrong", "reason": "0 of 32 tokens alone"}
    page = markdown(result(row(native=timed(15.0), ctranslate2=refused, onnxruntime=wrong, openvino=timed(12.0))))
    assert "- ctranslate2, missing: CTranslate2 has float32 on this processor (qwen05 bf16)" in page.splitlines()
    assert "- onnxruntime, wrong: 0 of 32 tokens alone (qwen05 bf16)" in page.splitlines()
    assert "99.0" not in page
    assert cells(page, "target", "tokens per second of one row / best peer")["worst"] == "1.250"


def test_targets_say_where_and_by_how_much() -> None:
    fast = row("int8", native=timed(18.0, long=400.0, together=130.0), llamacpp=timed(16.0))
    slow = row("bf16", native=timed(9.0, long=600.0), llamacpp=timed(10.0))
    slow["starts"] = {
        "native": {"start_s": [2.0, 2.2, 9.0], "peak_mib": [1100.0] * 3},
        "llamacpp": {"start_s": [1.0] * 3, "peak_mib": [990.0] * 3},
    }
    small = row("int8", "smollm2", native=timed(30.0), llamacpp=timed(20.0))
    small["starts"] = {
        "native": {"start_s": [2.0], "peak_mib": [300.0]},
        "native, C++": {"start_s": [0.4], "peak_mib": [500.0]},
        "llamacpp": {"start_s": [0.5], "peak_mib": [300.0]},
    }
    page = markdown(result(fast, slow, small))
    one = cells(page, "target", "tokens per second of one row / best peer")
    assert (one["bound"], one["worst"], one["reached or missed"]) == ("at least 1", "0.900", "**missed** at 1 of 3")
    assert cells(page, "target", "share of the memory's speed, 0.5B in bf16 and int8")["worst"] == "0.450"
    assert cells(page, "target", "prompt of 512 / best peer")["worst"] == "1.200"
    assert cells(page, "target", "tokens per second of 8 rows / best peer")["worst"] == "1.000"
    start = cells(page, "target", "first token after process start in C++, SmolLM2 / best peer")
    assert (start["worst"], start["reached or missed"]) == ("0.800", "reached")
    # 1e9 bytes of weights, and 8 rows of 161 tokens.
    assert cells(page, "target", "peak beyond imports / weights and cache")["worst"] == "1.135"
    line = cells(page, "", "native, C++")
    assert (line["first token, s"], line["peak, MiB"], line["tokens/s"]) == ("**0.40**", "500", "–")


def test_the_picture_has_times_so_that_left_is_faster() -> None:
    given = result(row(native=timed(20.0, long=800.0), plain=timed(5.0), openvino=timed(10.0, long=400.0)))
    root = ElementTree.fromstring(svg(picture(given)))
    place = "bf16/qwen05, to openvino/"
    dots = {group.get("id", "").removeprefix(place): group for group in root.iter(f"{SVG}g")}
    x = {
        name: float(next(group.iter(f"{SVG}use")).get("x", ""))
        for name, group in dots.items()
        if group.get("id", "").startswith(place)
    }
    assert x["one row"] < x["8 rows"] < x["prompt of 512"]


def test_the_report_needs_the_json_alone(tmp_path: Path) -> None:
    (tmp_path / "generate.json").write_text(json.dumps(result(row(native=timed(8.0), openvino=timed(10.0)))))
    report(tmp_path)
    assert "qwen05 bf16" in (tmp_path / "generate.md").read_text() and (tmp_path / "generate.svg").stat().st_size


def test_tokens_are_counted_from_the_moment_at_which_each_row_has_one() -> None:
    """Rows that begin early, because their prompts were read first, gain nothing by it."""
    assert speed_of(Written([[1] * 3], [[5.0, 5.5, 6.0]])) == 2.0
    assert speed_of(Written([[1] * 4, [1] * 3], [[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0]])) == 2.0


def test_a_precision_that_a_contender_lacks_is_refused() -> None:
    with pytest.raises(RefusedError, match="transformers has no int4"):
        writers(Job("eager", "eager", "smollm2", "int4", 2, "", ""))


def test_names_on_the_command_line() -> None:
    assert [one.name for one in choose_rows(["smollm2"], ["int8", "fp32"])] == ["smollm2 fp32", "smollm2 int8"]
    assert len(choose_rows([], [])) == 8
    assert [one.name for one in choose_contenders(["memory", "native"])] == ["native", "memory"]
    for call in (lambda: choose_rows(["gpt"], []), lambda: choose_rows([], ["fp8"]), lambda: choose_contenders(["x"])):
        with pytest.raises(UnknownNameError, match="there are"):
            call()
    assert options_of(["--rows", "smollm2", "--rounds", "2"]).rounds == 2


def test_a_finished_row_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "RESULTS", tmp_path)
    monkeypatch.setattr(store, "exporter_sources", lambda: [])
    asked, given = Row("smollm2", "int8"), [CONTENDERS["native"], CONTENDERS["eager"]]
    assert not store.is_done(asked, given, Settings(3, 2))
    refused = {"status": "missing", "reason": "no int8"}
    store.write(asked, contenders={"native": timed(9.0), "eager": refused}, sizes={"weights": 1})
    assert store.is_done(asked, given, Settings(3, 2))
    assert not store.is_done(asked, given, Settings(4, 2))
    assert not store.is_done(asked, [*given, CONTENDERS["memory"]], Settings(3, 2))
    assert store.read(asked)["sizes"] == {"weights": 1}


def test_every_precision_has_its_bound() -> None:
    assert set(rows.LEAST_EQUAL) == set(rows.PRECISIONS)


def test_one_row_may_begin_differently_in_int8_alone() -> None:
    assert not too_few([32, 32, 2, 0], "int8")
    assert too_few([0, 0, 32], "int8")
    assert too_few([32, 32, 31], "fp32")
    assert too_few([32, 32, 7], "bf16")
