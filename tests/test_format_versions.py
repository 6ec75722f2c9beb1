"""Files of every format version that is still read: one is kept per version (tests/data/make.py), and must load."""

from __future__ import annotations

from pathlib import Path

import pytest

import runtime
from runtime.format.manifest import FORMAT_VERSION, OLDEST_FORMAT_VERSION
from tests.conftest import BIN, ROOT, run

DATA = ROOT / "tests/data"


def test_there_is_a_file_for_each_version() -> None:
    versions = range(OLDEST_FORMAT_VERSION, FORMAT_VERSION + 1)
    assert {path.name for path in DATA.glob("*.pt")} == {f"format-{version}.pt" for version in versions}


@pytest.mark.parametrize("path", sorted(DATA.glob("*.pt")), ids=lambda path: path.stem)
def test_a_file_of_the_version_gives_the_outputs_that_it_holds(path: Path) -> None:
    assert runtime.read_manifest(path).format_version == int(path.stem.removeprefix("format-"))
    done = run([BIN / "run-model", "check", path])
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("passed\n")
