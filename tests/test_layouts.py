"""The table of published folders: what becomes of a layout, and the section of the page that tells of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", minversion="5.0", reason="layouts are built from its classes")
pytest.importorskip("pebble", reason="in the environment of the IPEX line alone")
pytest.importorskip("peft", reason="layouts of adapters are compared with it")

from runtime import Session  # noqa: E402 (behind the skips)
from tests.model_matrix import report  # noqa: E402
from tests.model_matrix.layouts import page, steps  # noqa: E402
from tests.model_matrix.layouts.layout import Layout, Mismatch  # noqa: E402
from tests.model_matrix.layouts.published import SAMPLE, all_layouts  # noqa: E402
from tests.model_matrix.layouts.vectors import Embeddings, close_scores, close_vectors, distinct  # noqa: E402

NAMED = {layout.name: layout for layout in all_layouts()}
MINILM = NAMED["sentence-transformers/all-MiniLM-L6-v2"]


def test_the_list_is_complete() -> None:
    assert len(NAMED) == len(all_layouts()) >= 100
    assert len(SAMPLE) == 12 and set(SAMPLE) <= set(NAMED)
    for layout in all_layouts():
        assert bool(layout.refused) == bool(layout.why) == (layout.comparison is None), layout.name


@pytest.fixture
def row(tmp_path: Path) -> Callable[[Layout], dict[str, Any]]:
    """A layout's row after both steps."""

    def make(layout: Layout) -> dict[str, Any]:
        found = steps.export_layout(layout, "fp32", tmp_path)
        return found | (steps.probe_layout(layout, tmp_path) if found["result"] == "right" else {})

    return make


def test_a_folder_that_is_right(row: Callable[[Layout], dict[str, Any]]) -> None:
    found = row(MINILM)
    assert (found["result"], found["task"]) == ("right", "sentence-embedding"), found["reason"]
    assert 0 <= found["max_error"] < 1e-5 and found["must"] == "be right"


@dataclasses.dataclass(frozen=True)
class Other(Embeddings):
    """Vectors of a library that disagrees."""

    def expected(self, folder: Path) -> Any:
        whole, shorter = super().expected(folder)
        return {name: rows.flip(0) for name, rows in whole.items()}, shorter


def test_other_answers_are_wrong(row: Callable[[Layout], dict[str, Any]]) -> None:
    found = row(dataclasses.replace(MINILM, comparison=Other()))
    assert found["result"] == "wrong" and "cosine" in found["reason"]


def test_a_file_for_a_folder_that_must_be_refused_is_wrong(row: Callable[[Layout], dict[str, Any]]) -> None:
    found = row(dataclasses.replace(MINILM, comparison=None, refused="code", why="it is code"))
    assert found["result"] == "wrong" and "it is code" in found["reason"]


@pytest.mark.parametrize(("cause", "result"), [("trust-remote-code", "refused"), ("quantised", "unclear")])
def test_a_refusal_has_to_name_its_cause(row: Callable[[Layout], dict[str, Any]], cause: str, result: str) -> None:
    found = row(dataclasses.replace(NAMED["Alibaba-NLP/gte-base-en-v1.5"], refused=cause))
    assert found["result"] == result and "--trust-remote-code" in found["reason"]


class Alike(Embeddings):
    """Answers that could not reveal a wrong file."""

    def expected(self, folder: Path) -> Any:
        distinct(torch.ones(2, 4))

    def compare(self, session: Session, expected: Any) -> float:
        raise NotImplementedError


def test_answers_that_are_alike_do_not_count(row: Callable[[Layout], dict[str, Any]]) -> None:
    found = row(dataclasses.replace(MINILM, comparison=Alike()))
    assert found["result"] == "unbuilt" and "alike" in found["reason"]


def test_what_is_close() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert close_vectors(rows, rows * 1.0001, "x") < 1e-6
    for other in (rows * 1.01, rows + 0.1, rows[:1], torch.full_like(rows, float("nan"))):
        with pytest.raises(Mismatch):
            close_vectors(other, rows, "x")
        with pytest.raises(Mismatch):
            close_scores(other, rows, "x")


def line(name: str, result: str, reason: str = "") -> dict[str, Any]:
    known = {"layout": name, "area": "embedding", "answers": "Embeddings", "must": "be right", "date": "2026-01-02"}
    return known | {"result": result, "reason": reason, "max_error": 1e-7, "seconds": 2.0}


def test_the_page_keeps_both_tables(tmp_path: Path) -> None:
    report.write(tmp_path, [], report.gather({"fp32": {}}))
    totals = page.write(tmp_path, {"fp32": [line("org/one", "right"), line("org/two", "refused", "no such base")]})
    assert [cell.strip() for cell in totals[-1].split("|")[1:6]] == ["all", "2", "", "1", "1"]
    text = (tmp_path / "coverage.md").read_text()
    assert "org/one" in text and "- **refused**: org/two: no such base" in text and "## fp32" in text
    # Written again, either leaves the other as it is.
    page.write(tmp_path, {"fp32": [line("org/three", "right")]})
    report.write(tmp_path, [], report.gather({"fp32": {}}))
    text = (tmp_path / "coverage.md").read_text()
    assert (
        "org/three" in text and "org/one" not in text and text.count("<!-- layouts -->") == 1 == text.count("## fp32")
    )
