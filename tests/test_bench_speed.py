"""The speed benchmark's report: what a reader of speed.md sees, from a small speed.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest

from benchmarks.speed import summary
from benchmarks.speed.__main__ import options_of, report
from benchmarks.speed.check import errors, is_right
from benchmarks.speed.markdown import markdown
from benchmarks.speed.picture import picture, x_of
from benchmarks.speed.rows import CONTENDERS, ROWS, UnknownNameError, choose_rows

NEAR = {"max_error": 1e-6, "rms_error": 1e-6, "cosine_mean": 0.99, "cosine_least": 0.94}


def timed(*blocks: float, run: str = "a", **more: Any) -> dict[str, Any]:
    return {"status": "timed", "run": run, "errors": NEAR, "variant": "", "blocks_ms": list(blocks), "calls": 9, **more}


def row(shape: str, precision: str = "bf16", model: str = "bert-base", **contenders: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "shape": shape, "precision": precision, "contenders": contenders}


def result(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": "2 cores, a processor",
        "system": "Linux",
        "versions": {"torch": "2.8.0"},
        "settings": {
            "rounds": 3,
            "seconds a block": 0.5,
            "least calls a block": 3,
            "threads": 2,
            "tuned for": "each model",
        },
        "models": {"bert-base": "BERT"},
        "contenders": {name: {"kind": one.kind, "about": one.about} for name, one in CONTENDERS.items()},
        "weights_bytes": {"bert-base": {"fp32": 400 * 2**20, "bf16": 200 * 2**20}},
        "method": ["Rounds."],
        "left_out": ["Padding."],
        "rows": list(rows),
    }


def cells(text: str, head: str, first: str) -> dict[str, str]:
    """The cells of the line that begins with `first`, in the table whose head begins with `head`, by column."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {head} "))
    names = [cell.strip() for cell in lines[start].strip("|").split("|")]
    for line in lines[start + 2 :]:
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if found[0] == first:
            return dict(zip(names, found, strict=True))
    raise AssertionError(f"no line {first!r}")


def test_a_time_is_the_median_of_the_rounds() -> None:
    """One slow round, as another program may cause, changes nothing."""
    page = markdown(result(row("1x32", tuned=timed(11.0, 12.0, 500.0), openvino=timed(24.0, 20.0, 22.0))))
    assert cells(page, "ms", "bert-base 1x32")["tuned"] == "**12.0**"
    ratios = cells(page, "ratio", "bert-base 1x32")
    assert ratios["best peer"] == "openvino" and ratios["tuned / best peer"] == "0.55"


def test_what_was_not_measured_is_a_dash() -> None:
    missing = {"status": "missing", "reason": "this exporter has no backend onednn", "run": "a"}
    page = markdown(result(row("1x32", tuned=timed(10.0), onednn=missing, eager=timed(20.0))))
    assert cells(page, "ms", "bert-base 1x32")["onednn"] == "–"
    ratios = cells(page, "ratio", "bert-base 1x32")
    assert ratios["tuned / best peer"] == "–" and ratios["onednn / ipex"] == "–" and ratios["tuned / eager"] == "0.50"
    assert "this exporter has no backend onednn (bert-base 1x32 bf16)" in page


def test_wrong_answers_are_shown_and_never_the_best() -> None:
    """Even with times: whoever answers wrong is no peer to be measured by."""
    wrong = timed(1.0) | {"status": "wrong"}
    page = markdown(result(row("1x32", tuned=timed(10.0), onnxruntime=wrong, openvino=timed(8.0))))
    assert cells(page, "ms", "bert-base 1x32")["onnxruntime"] == "*wrong*"
    assert cells(page, "ratio", "bert-base 1x32")["best peer"] == "openvino"
    assert "onnxruntime, wrong: answers too far from eager fp32" in page


def test_the_floor_is_no_peer() -> None:
    page = markdown(result(row("8x128", tuned=timed(12.0), openvino=timed(15.0), floor=timed(10.0))))
    ratios = cells(page, "ratio", "bert-base 8x128")
    assert ratios["best peer"] == "openvino" and ratios["tuned / floor"] == "1.20"


def test_targets_say_where_and_by_how_much() -> None:
    page = markdown(
        result(
            row("1x32", tuned=timed(9.0), openvino=timed(10.0)),
            row("8x128", tuned=timed(110.0), openvino=timed(100.0), floor=timed(100.0)),
        )
    )
    every = cells(page, "target", "tuned / best peer, every row")
    assert every["worst"] == "1.100"
    assert every["reached or missed"] == "**missed** at 1 of 2: bert-base 8x128 bf16 1.100, by 10.0%"
    # sqrt(0.9 * 1.1)
    mean = cells(page, "target", "tuned / best peer, geometric mean of a precision")
    assert mean["worst"] == "0.995" and "bf16 0.995, by 8.2%" in mean["reached or missed"]
    assert cells(page, "target", "tuned / floor, fp32 and bf16 at 8x128 and 1x384")["reached or missed"] == "reached"
    assert cells(page, "target", "onednn / ipex, fp32")["reached or missed"] == "not measured"


def test_a_cosine_is_missed_from_below() -> None:
    page = markdown(result(row("1x32", "int8", "minilm", tuned=timed(1.0))))
    assert cells(page, "target", "int8 MiniLM, mean cosine to fp32")["reached or missed"] == "reached"
    least = cells(page, "target", "int8 MiniLM, least cosine to fp32")
    assert "minilm 1x32 int8 0.940, by 1.1%" in least["reached or missed"]


def test_start_and_memory_count_from_the_import() -> None:
    start = {
        "start_s": [2.0, 1.6, 9.0],
        "import_s": [1.5, 1.2, 1.4],
        "peak_mib": [900, 910, 905],
        "steady_mib": [700, 710, 705],
        "import_mib": [400, 400, 405],
    }
    given = row("1x128", tuned=timed(9.0)) | {"starts": {"tuned": start}}
    page = markdown(result(given))
    line = cells(page, "", "bert-base 1x128 bf16, tuned")
    assert line["first answer, s"] == "2.00" and line["of it after the framework's import, s"] == "0.50"
    assert line["steady beyond import, MiB"] == "300" and line["steady / weights"] == "1.50"
    memory = cells(page, "target", "steady memory beyond import torch / weights")
    assert "bert-base 1x128 bf16 1.500, by 11.1%" in memory["reached or missed"]


def test_times_of_different_runs_are_marked() -> None:
    page = markdown(result(row("1x32", tuned=timed(10.0, run="a"), openvino=timed(12.0, run="b"))))
    assert "| bert-base 1x32 † |" in page and "in more than one run" in page


def test_the_profile_adds_up() -> None:
    operators = [{"name": f"op{number}", "ms": 1.0, "count": 2} for number in range(20)]
    page = markdown(result(row("8x128", tuned=timed(9.0)) | {"profile": {"calls": 5, "operators": operators}}))
    assert cells(page, "operator", "`op0`")["share"] == "5.0%"
    assert cells(page, "operator", "5 others")["share"] == "25.0%"


def test_the_picture_has_a_dot_a_contender() -> None:
    drawn = picture(result(row("1x32", tuned=timed(8.0), openvino=timed(10.0), eager=timed(200.0), floor=timed(7.0))))
    root = ElementTree.fromstring(drawn)
    tips = {str(tip.text).partition(":")[0] for tip in root.iter("{http://www.w3.org/2000/svg}title")}
    assert tips == {"tuned", "openvino", "eager", "floor"}
    # Far outside stands at the edge, not beyond it.
    assert x_of(20.0) == x_of(4.0) and x_of(0.5) < x_of(1.0)


def test_the_report_needs_the_json_alone(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps(result(row("1x32", tuned=timed(8.0), openvino=timed(10.0)))))
    report(tmp_path)
    first = (tmp_path / "speed.md").read_text(), (tmp_path / "speed.svg").read_text()
    report(tmp_path)
    assert ((tmp_path / "speed.md").read_text(), (tmp_path / "speed.svg").read_text()) == first


def test_answers_are_judged_by_precision() -> None:
    right = [numpy.array([[1.0, 2.0, 3.0]])]
    close = errors([right[0] * 1.01], right)
    assert is_right(close, "bf16") and not is_right(close, "fp32")
    assert not is_right(errors([right[0][:, :2]], right), "int8")
    assert not is_right(errors([right[0] * numpy.nan], right), "int8")
    assert not is_right(errors([right[0][:, ::-1]], right), "int8")
    # What errs like fp32 is not int8, whatever it is called.
    assert not is_right(errors(right, right), "int8")


def test_rows_are_chosen_by_name_and_pattern() -> None:
    assert [one.shape for one in choose_rows(["minilm"], ["fp32"])] == ["1x32", "1x128", "8x128", "1x384"]
    assert {one.name for one in choose_rows(["*/8x128"], ["bf16"])} == {"bert-base/8x128", "minilm/8x128"}
    assert len(choose_rows([], ["fp32", "bf16", "int8"])) == len(ROWS) == 30
    with pytest.raises(UnknownNameError, match="there are bert-base/1x32"):
        choose_rows(["bert-large"], ["fp32"])


@pytest.mark.parametrize("arguments", [["--contenders", "tensorrt"], ["--precision", "fp8"], ["--rounds", "0"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of(arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_ratios_are_none_without_both_times() -> None:
    given = row("1x32", tuned=timed(8.0))
    kinds = result(given)["contenders"]
    assert summary.ratio_of(given, kinds, "tuned / best peer") is None
    assert summary.geometric_mean([None, 2.0, 8.0]) == pytest.approx(4.0)
    assert summary.geometric_mean([None]) is None
