"""Hostile files: each ends in a named error, or in a right answer where it is sound after all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.hostile import Case, all_cases
from tests.hostile.__main__ import write

CASES = all_cases()


@pytest.fixture(scope="module")
def outcomes(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, str]:
    """What came of each file; all in one run, in which each file has a child process of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    files = [folder / row["file"] for row in write(folder, tiny_artifact.read_bytes())]
    # clean start: the current folder is the project's own
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.attempt"],
        input="".join(f"{file}\n" for file in files),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
    )
    return dict(zip(CASES, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{case.name}" for case in CASES])
def test_each_is_refused_by_name_or_answers(case: Case, outcomes: dict[Case, str]) -> None:
    outcome = outcomes[case]
    if case.expected == "right":
        assert outcome == "answered", case.what
    elif case.expected == "refused":
        assert outcome.startswith(f"refused {case.error}"), case.what
    else:
        assert outcome.startswith(("refused ", "answered")), case.what
