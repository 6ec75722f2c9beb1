"""The matrix of tiny models: what becomes of a pair whose process does not end well, and the page that tells of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

pytest.importorskip("transformers", minversion="5.0", reason="the matrix builds from its tables")
pytest.importorskip("pebble", reason="in the environment of the IPEX line alone")

from tests.model_matrix import report  # noqa: E402 (behind the skip)
from tests.model_matrix.pairs import Pair  # noqa: E402
from tests.model_matrix.processes import run_steps  # noqa: E402
from tests.model_matrix.tiny import tiny_model  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def pair(name: str) -> Pair:
    return Pair(name, "fill-mask", "Model", "encoder")


def row(name: str, result: str = "right", reason: str = "") -> dict[str, Any]:
    named = {"model_type": name, "task": "fill-mask", "architecture": "Model", "kind": "encoder"}
    return named | {"result": result, "reason": reason, "max_error": 1e-6, "seconds": 1.0}


def exports(pair: Pair, _precision: Any, folder: Path, _gates: str) -> dict[str, Any]:
    if pair.model_type == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if pair.model_type == "slow":
        time.sleep(60)
    if pair.model_type == "raises":
        raise ValueError("no such\nsize")
    (folder / "written").touch()
    return row(pair.model_type, "refused" if pair.model_type == "refused" else "right")


def probes(pair: Pair, _precision: Any, folder: Path, _gates: str) -> dict[str, Any]:
    assert (folder / "written").exists()
    return {"result": "wrong", "reason": "at 3x5"} if pair.model_type == "lies" else {}


@pytest.mark.slow
def test_one_process_that_ends_badly_is_the_result_of_its_pair_alone() -> None:
    names = ("killed", "slow", "raises", "refused", "lies", "fine")
    rows = run_steps([pair(name) for name in names], "fp32", 2, "", exports, probes, seconds=8)
    found = {one["model_type"]: (one["result"], one["reason"]) for one in rows}
    assert found == {
        "killed": ("died", "the process ended with -9"),
        "slow": ("out of time", "no end after 8 s"),
        "raises": ("died", "ValueError: no such size"),
        "refused": ("refused", ""),
        "lies": ("wrong", "at 3x5"),
        "fine": ("right", ""),
    }


def test_whoever_stops_asking_waits_for_nothing() -> None:
    begun = time.monotonic()
    rows = run_steps([pair("refused"), pair("slow")], "fp32", 1, "", exports, probes)
    assert next(rows)["model_type"] == "refused"
    rows.close()  # type: ignore[attr-defined]
    # The slow one, meanwhile perhaps started, sleeps for a minute.
    assert time.monotonic() - begun < 45


def test_the_page_counts_every_pair_and_tells_the_reasons(tmp_path: Path) -> None:
    pairs = [pair("bert"), pair("nezha"), pair("never")]
    rows = {one["model_type"] + " fill-mask": one for one in (row("bert"), row("nezha", "refused", "a | b"))}
    totals = report.write(tmp_path, pairs, report.gather({"fp32": rows}))
    page = (tmp_path / "coverage.md").read_text()
    line = next(line for line in totals if line.startswith("| encoders"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["encoders", "3", "2", "1"] and cells[-2:] == ["50.0 %", "1.0"] and line in page
    assert "- **refused**: nezha, fill-mask: a | b" in page.splitlines()
    root = ElementTree.parse(tmp_path / "coverage.svg").getroot()
    parts = [group.get("id", "") for group in root.iter(f"{SVG}g") if group.get("id", "").startswith("fill-mask/")]
    assert parts == ["fill-mask/right", "fill-mask/refused"]
    assert "1 of 2" in [text.text for text in root.iter(f"{SVG}text")]


def test_language_models_have_a_section_of_their_own_that_stays(tmp_path: Path) -> None:
    def writes(name: str, result: str, reason: str = "", generated: str | None = None) -> dict[str, Any]:
        return row(name, result, reason) | {"backend": "native" if generated else None, "generated": generated}

    reason = "TaskError: model type 'mamba' keeps a state from token to token; expected keys and values"
    rows = {
        "llama": writes("llama", "right", "", "64 of 64, 64 of 64"),
        "mamba": writes("mamba", "refused", reason),
        "odd": writes("odd", "refused", "VerificationError: wrong in pieces"),
    }
    (total,) = report.write_generation(tmp_path, {"fp32": rows})
    assert "1 were refused because" in total and "of the 2 others 1 are right (50.0 %)" in total
    report.write(tmp_path, [pair("bert")], report.gather({"fp32": {"bert fill-mask": row("bert")}}))
    page = (tmp_path / "coverage.md").read_text()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    assert ["llama", "right", "native", "64 of 64, 64 of 64"] in cells and page.count(total) == 1
    assert "- **refused**: odd: VerificationError: wrong in pieces" in page.splitlines() and "## fp32" in page


def test_the_page_is_drawn_again_from_the_raw_rows(tmp_path: Path) -> None:
    given = report.gather({"fp32": {"bert fill-mask": row("bert")}}) | {"date": "2026-01-02"}
    report.write(tmp_path, [pair("bert")], given)
    first = (tmp_path / "coverage.md").read_text()
    assert "2026-01-02" in first
    report.write(tmp_path, [pair("bert")], report.load(tmp_path))
    assert (tmp_path / "coverage.md").read_text() == first


def test_no_tiny_model_answers_by_rounding_alone() -> None:
    """With random ones the logits of PP-OCR's detector were 1e13: every output was 0 or 1, whatever the weights."""
    model = tiny_model("pp_ocrv5_mobile_det", "PPOCRV5MobileDetForObjectDetection")
    with torch.no_grad():
        found = model(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))).last_hidden_state
    assert not model.training
    assert len(found.unique()) > 1000
