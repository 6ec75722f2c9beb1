"""The speed benchmark's report: what a reader of speed.md sees, from a small speed.json."""

from __future__ import annotations

import ast
import json
import mmap
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest

from benchmarks.harness import machine, places, tables
from benchmarks.harness.charts import svg
from benchmarks.harness.check import errors, is_right
from benchmarks.harness.rows import CONTENDERS, ROWS, Settings, UnknownNameError, choose_rows
from benchmarks.speed import store, summary
from benchmarks.speed.__main__ import options_of, report
from benchmarks.speed.markdown import markdown
from benchmarks.speed.picture import picture

NEAR = {"max_error": 1e-6, "rms_error": 1e-6, "cosine_mean": 0.996, "cosine_least": 0.94}


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
    page = markdown(result(row("1x32", native=timed(11.0, 12.0, 500.0), openvino=timed(24.0, 20.0, 22.0))))
    assert cells(page, "ms", "bert-base 1x32")["native"] == "**12.0**"
    ratios = cells(page, "ratio", "bert-base 1x32")
    assert ratios["best peer"] == "openvino" and ratios["native / best peer"] == "0.55"


def test_what_was_not_measured_is_a_dash() -> None:
    missing = {"status": "missing", "reason": "this exporter has no backend onednn", "run": "a"}
    page = markdown(result(row("1x32", native=timed(10.0), onednn=missing, eager=timed(20.0))))
    assert cells(page, "ms", "bert-base 1x32")["onednn"] == "–"
    ratios = cells(page, "ratio", "bert-base 1x32")
    assert (
        ratios["native / best peer"] == "–"
        and ratios["tuned / best peer"] == "–"
        and ratios["native / eager"] == "0.50"
    )
    assert "this exporter has no backend onednn (bert-base 1x32 bf16)" in page


def test_wrong_answers_are_shown_and_never_the_best() -> None:
    """Even with times: whoever answers wrong is no peer to be measured by."""
    wrong = timed(1.0) | {"status": "wrong"}
    page = markdown(result(row("1x32", native=timed(10.0), onnxruntime=wrong, openvino=timed(8.0))))
    assert cells(page, "ms", "bert-base 1x32")["onnxruntime"] == "*wrong*"
    assert cells(page, "ratio", "bert-base 1x32")["best peer"] == "openvino"
    assert "onnxruntime, wrong: answers too far from eager fp32" in page


def test_the_floor_is_no_peer() -> None:
    page = markdown(result(row("8x128", native=timed(12.0), openvino=timed(15.0), floor=timed(10.0))))
    ratios = cells(page, "ratio", "bert-base 8x128")
    assert ratios["best peer"] == "openvino" and ratios["native / floor"] == "1.20"


def test_targets_say_where_and_by_how_much() -> None:
    page = markdown(
        result(
            row("1x32", native=timed(9.0), openvino=timed(10.0)),
            row("8x128", native=timed(110.0), openvino=timed(100.0), floor=timed(100.0)),
        )
    )
    every = cells(page, "target", "native / best peer, every row")
    assert every["worst"] == "1.100"
    assert every["reached or missed"] == "**missed** at 1 of 2"
    assert "- native / best peer, every row: bert-base 8x128 bf16 1.100, by 10.0%" in page.splitlines()
    # sqrt(0.9 * 1.1)
    mean = cells(page, "target", "native / best peer, geometric mean, bf16")
    assert mean["worst"] == "0.995" and mean["reached or missed"] == "**missed** at 1 of 1"
    assert "- native / best peer, geometric mean, bf16: bf16 0.995, by 10.6%" in page.splitlines()
    assert cells(page, "target", "native / best peer, geometric mean, fp32")["reached or missed"] == "not measured"


def test_a_cosine_is_missed_from_below() -> None:
    page = markdown(result(row("1x32", "int8", "minilm", native=timed(1.0))))
    what = "int8 MiniLM without calibration"
    assert cells(page, "target", f"{what}, mean cosine to fp32")["reached or missed"] == "reached"
    least = cells(page, "target", f"{what}, least cosine to fp32")
    assert least["reached or missed"] == "**missed** at 1 of 1"
    assert f"- {what}, least cosine to fp32: minilm 1x32 int8 0.940, by 4.1%" in page.splitlines()


def test_start_and_memory_count_from_the_import() -> None:
    start = {
        "start_s": [2.0, 1.6, 9.0],
        "import_s": [1.5, 1.2, 1.4],
        "peak_mib": [900, 910, 905],
        "steady_mib": [700, 710, 705],
        "import_mib": [400, 400, 405],
    }
    given = row("1x128", native=timed(9.0)) | {"starts": {"native": start}}
    page = markdown(result(given))
    line = cells(page, "", "bert-base 1x128 bf16, native")
    assert line["first answer, s"] == "2.00" and line["of it after the framework's import, s"] == "0.50"
    assert line["steady beyond import, MiB"] == "300" and line["steady / weights"] == "1.50"
    memory = cells(page, "target", "steady memory beyond import torch / weights")
    assert memory["reached or missed"] == "**missed** at 1 of 1"
    assert "- steady memory beyond import torch / weights: bert-base 1x128 bf16 1.500, by 30.4%" in page.splitlines()


def test_times_of_different_runs_are_marked() -> None:
    page = markdown(result(row("1x32", native=timed(10.0, run="a"), openvino=timed(12.0, run="b"))))
    assert "| bert-base 1x32 † |" in page and "in more than one run" in page


def test_the_profile_adds_up() -> None:
    operators = [{"name": f"op{number}", "ms": 1.0, "count": 2} for number in range(20)]
    page = markdown(result(row("8x128", native=timed(9.0)) | {"profile": {"calls": 5, "operators": operators}}))
    assert cells(page, "operator", "`op0`")["share"] == "5.0%"
    assert cells(page, "operator", "5 others")["share"] == "25.0%"


SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_has_ours_against_the_best_peer() -> None:
    """The faster of ours, and the best peer by name; neither slower ones nor eager mode."""
    times = {"openvino": timed(10.0), "onnxruntime": timed(12.0), "eager": timed(20.0), "floor": timed(7.0)}
    given = result(row("1x32", native=timed(8.0), tuned=timed(9.0), **times))  # type: ignore[arg-type]
    root = ElementTree.fromstring(svg(picture(given)))
    place = "bf16/bert-base 1x32, to openvino/"
    dots = {group.get("id", "").removeprefix(place): group for group in root.iter(f"{SVG}g")}
    dots = {name: group for name, group in dots.items() if group.get("id", "").startswith(place)}
    assert set(dots) == {"this project", "matrix products alone"}
    # No dot stands elsewhere than its ratio says.
    x = {name: float(next(group.iter(f"{SVG}use")).get("x", "")) for name, group in dots.items()}
    assert x["matrix products alone"] < x["this project"]
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"bert-base 1x32, to openvino", "this project", "bf16"} <= words


def test_a_row_without_a_peer_is_no_line_of_the_picture() -> None:
    given = result(row("1x32", native=timed(8.0)), row("8x128", native=timed(8.0), openvino=timed(100.0)))
    root = ElementTree.fromstring(svg(picture(given)))
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert "bert-base 8x128, to openvino" in words
    assert not any("1x32" in (word or "") for word in words)


def test_the_same_results_give_the_same_picture() -> None:
    given = result(row("1x32", native=timed(8.0), openvino=timed(10.0)))
    assert svg(picture(given)) == svg(picture(given))


def test_the_report_needs_the_json_alone(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps(result(row("1x32", native=timed(8.0), openvino=timed(10.0)))))
    report(tmp_path)
    first = (tmp_path / "speed.md").read_text(), (tmp_path / "speed.svg").read_text()
    report(tmp_path)
    assert ((tmp_path / "speed.md").read_text(), (tmp_path / "speed.svg").read_text()) == first


def test_without_raw_results_the_report_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"speed\.json is missing.*run the benchmark first"):
        report(tmp_path)


def test_a_run_keeps_older_rows_of_the_same_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where build/ was removed, what docs/benchmarks still has is merged; but no table mixes machines."""
    monkeypatch.setattr(places, "RESULTS", tmp_path)
    settings = Settings(3, 0.5, 3, 2)
    monkeypatch.setattr(machine, "surroundings", lambda: {"machine": "one", "versions": {"torch": "2.8.0"}})
    store.write(ROWS[0], contenders={"native": timed(1.0)})
    older = [row(each.shape, each.precision, each.model, native=timed(9.0)) for each in ROWS[:2]]
    found = store.gather(settings, {"machine": "one", "versions": {"torch": "2.8.0"}, "rows": older})
    assert [each["contenders"]["native"]["blocks_ms"] for each in found["rows"]] == [[1.0], [9.0]]
    for other in ({"machine": "two", "versions": {"torch": "2.8.0"}}, {"machine": "one", "versions": {"torch": "2.9"}}):
        assert len(store.gather(settings, other | {"rows": older})["rows"]) == 1


def test_cells_stay_as_they_were_formatted() -> None:
    drawn = tables.table(["", "ms", "with"], [["a", "12.0", "1x2"], ["b", tables.DASH, ""]], ["with"])
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in drawn[2:]] == [
        ["a", "12.0", "1x2"],
        ["b", "–", ""],
    ]
    # Words on the left, numbers on the right.
    assert [cell.endswith(":") for cell in drawn[1].strip("|").split("|")] == [False, True, False]


def test_memory_is_that_of_this_process() -> None:
    before = machine.resident_bytes()
    # Of the system, not of what this process has had and given back.
    with mmap.mmap(-1, 64 * 2**20) as block:
        block[::4096] = b"x" * len(block[::4096])
        assert machine.resident_bytes() - before > 48 * 2**20
    assert machine.peak_bytes() >= machine.resident_bytes() - 2**20
    assert machine.free_bytes() > 0


def test_each_package_of_the_benchmarks_has_one_importing_module() -> None:
    """And speed, generate and loadgen share the harness without importing each other."""
    found: dict[str, set[str]] = {}
    for folder in ("benchmarks", "tests/model_matrix"):
        for path in (places.ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    found.setdefault(name.split(".")[0], set()).add(path.relative_to(places.ROOT).as_posix())
                    wing = path.relative_to(places.ROOT).parts[1]
                    wings = ("speed", "generate", "loadgen")
                    others = tuple(f"benchmarks.{other}" for other in wings if other != wing)
                    assert wing not in (*wings, "harness") or not name.startswith(others), path
    modules = {"matplotlib": "benchmarks/harness/charts.py", "tabulate": "benchmarks/harness/tables.py"}
    modules |= {"psutil": "benchmarks/harness/machine.py", "pebble": "tests/model_matrix/processes.py"}
    assert {name: found[name] for name in modules} == {name: {path} for name, path in modules.items()}


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


def test_an_hour_has_what_decides_and_the_full_run_everything() -> None:
    short, full = options_of([]), options_of(["--full"])
    assert {one.name for one in short.against} == {"native", "eager", "onnxruntime", "openvino", "floor"}
    assert [one.name for one in full.against] == list(CONTENDERS)
    assert (short.rounds, short.seconds, full.rounds, full.seconds) == (3, 0.4, 9, 0.7)
    assert options_of(["--full", "--rounds", "5"]).rounds == 5
    # A table of another level of processors is never written over.
    assert short.output == places.OUTPUT / machine.level()


@pytest.mark.parametrize("arguments", [["--contenders", "tensorrt"], ["--precision", "fp8"], ["--rounds", "0"]])
def test_unknown_names_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of(arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_ratios_are_none_without_both_times() -> None:
    given = row("1x32", native=timed(8.0))
    kinds = result(given)["contenders"]
    assert summary.ratio_of(given, kinds, "native / best peer") is None
    assert summary.geometric_mean([None, 2.0, 8.0]) == pytest.approx(4.0)
    assert summary.geometric_mean([None]) is None
