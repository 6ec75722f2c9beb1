"""The names, commands and options that users rely on; a change here is a change for them."""

from __future__ import annotations

import importlib
import re

import pytest

import exporter
import runtime
from exporter.cli import main as export_model
from exporter.config.request import ExportRequest
from runtime import moved
from tests.conftest import BIN, ROOT, run


def test_public_names() -> None:
    assert sorted(exporter.__all__) == ["ExportRequest", "Report", "export"]
    assert sorted(runtime.__all__) == [
        "ArtifactError",
        "CheckFailedError",
        "ExportError",
        "ExportedModelError",
        "GenerationPool",
        "InputError",
        "Manifest",
        "Pool",
        "RequirementError",
        "Session",
        "load",
        "read_manifest",
    ]
    for package in (exporter, runtime):
        for name in package.__all__:
            assert getattr(package, name) is not None


@pytest.mark.parametrize("package", [exporter, runtime])
def test_unknown_names_raise(package: object) -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("old", ["runtime.manifest", "exporter.request"])
def test_an_old_import_path_is_told_the_new_one(old: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"{old} is now \w+\.\w+\.\w+; expected imports from `runtime`"):
        importlib.import_module(old)


def test_every_new_import_path_exists() -> None:
    for name in moved.MOVED.values():
        importlib.import_module(name)


def test_flags_are_the_fields_of_the_request() -> None:
    flags = {parameter.name for parameter in export_model.params} - {
        *("as_json", "explain", "verbose", "quiet", "version", "help")
    }
    assert flags == set(ExportRequest.__dataclass_fields__)


@pytest.mark.parametrize(
    "command",
    ["export-model", "run-model", "run-model inspect", "run-model check", "run-model predict", "run-model generate"],
)
def test_every_option_is_documented(command: str) -> None:
    program, *rest = command.split()
    done = run([BIN / program, *rest, "--help"])
    assert done.returncode == 0
    options = set(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9-]+", done.stdout)) - {"--help"}
    documented = (ROOT / "docs/commands.md").read_text()
    assert {option for option in options if f"`{option}" not in documented} == set()


def test_the_error_tree_is_drawn_as_it_is() -> None:
    from runtime import errors

    drawn = set(re.findall(r"\w+Error", errors.__doc__ or ""))
    assert drawn == {name for name in vars(errors) if name.endswith("Error")}


def test_an_error_is_one_line() -> None:
    error = runtime.ExportedModelError("found\n  this", "that", "do so")
    assert str(error) == "found this; expected that; do so"
