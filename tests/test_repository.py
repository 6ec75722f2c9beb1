"""What the project's own files promise each other: targets that workflows call, examples that the index names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
EXAMPLES = ROOT / "examples"


def targets() -> set[str]:
    """Those that `make` may be asked for by name."""
    (names,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(names.split())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_exist(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = {word for line in lines for word in re.findall(r"\bmake ([a-z][\w-]*)", line)}
    assert called and called <= targets()
    # Whatever CI does, a developer can do by the same name.
    assert all(line.startswith("make ") for line in lines)


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text()
    linked = {link.partition("/")[0] for link in re.findall(r"\]\(([\w/.]+)\)", index) if not link.startswith("..")}
    assert linked == {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}


def test_commands_of_the_index_name_files_that_exist() -> None:
    named = re.findall(r"examples/[\w/]+\.\w+", (EXAMPLES / "README.md").read_text())
    assert named and all((ROOT / name).is_file() for name in named)


def test_hooks_run_programs_of_the_environment() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
