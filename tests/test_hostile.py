"""Hostile files: each ends in a named error, or in a right answer where it is sound after all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run
from hostile import all_cases
from hostile.__main__ import write

CASES = all_cases()


@pytest.fixture(scope="module")
def outcomes(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each file, by kind and name; all in one run, in which each file has a child process of its own."""
    import subprocess

    folder = tmp_path_factory.mktemp("hostile")
    rows = write(folder, tiny_artifact.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.attempt"],
        input="".join(f"{folder / row['file']}\n" for row in rows),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
    )
    lines = done.stdout.splitlines()
    return {f"{row['kind']}: {row['name']}": line for row, line in zip(rows, lines, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{case.name}" for case in CASES])
def test_each_is_refused_by_name_or_answers(case: object, outcomes: dict[str, str]) -> None:
    outcome = outcomes[f"{case.kind}: {case.name}"]  # type: ignore[attr-defined]
    if case.expected == "right":
        assert outcome == "answered"
    elif case.expected == "refused":
        assert outcome.startswith(f"refused {case.error}"), outcome
    else:
        assert outcome.startswith(("refused ", "answered")), outcome
