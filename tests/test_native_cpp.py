"""The native operators in a C++ program: compiled by the CMake package, or named when it runs; Python's outputs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import Report
from exporter.verification.subprocesses import module, python
from tests.conftest import ROOT, run
from tests.test_cpp import STRICT, build

pytestmark = [pytest.mark.cpp, pytest.mark.slow, pytest.mark.usefixtures("native_operators")]

PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(App LANGUAGES CXX)
find_package(ExportedModel CONFIG REQUIRED)
add_executable(app {source})
target_link_libraries(app PRIVATE ExportedModel::ExportedModel)
"""

# The Python runtime's outputs for the golden inputs, as the program writes them.
PYTHON = """
import sys
import torch
import runtime
from runtime.artifact import artifact_file
from runtime.format.golden import parse_cases

path = sys.argv[1]
session = runtime.load(path, threads=2)
cases = sorted(parse_cases(artifact_file.read_part(path, "golden.safetensors"), path), key=lambda case: case.name)
for case in cases:
    for _, output in sorted(session(**case.inputs).items()):
        sys.stdout.buffer.write(output.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
"""


def app(name: str, *definitions: str) -> Path:
    """A project of a user, with the package where Python says that it lies; what is compiled already stays."""
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    text, project = PROJECT.format(source=ROOT / "tests/cpp/native_app.cpp"), folder / "CMakeLists.txt"
    if not project.exists() or project.read_text() != text:
        project.write_text(text)
    package = run([*module("runtime"), "--cmake-dir"]).stdout.strip()
    # The program itself is not optimised, which takes long; the kernels are in every build.
    flags = [f"-DExportedModel_DIR={package}", "-DCMAKE_BUILD_TYPE=Debug", STRICT, *definitions]
    return build(folder / "build", folder, *flags) / "app"


@pytest.fixture(scope="module")
def linked() -> Path:
    """By default: the operators are compiled with it; here the lowest level alone, in a quarter of the time."""
    return app("app-native", "-DEM_NATIVE_HIGHEST=avx2")


@pytest.fixture(scope="module")
def without() -> Path:
    return app("app-without", "-DEXPORTED_MODEL_NATIVE=OFF")


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def artifact(request: pytest.FixtureRequest, tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> str:
    folder = tiny_folder("bert", "token-classification", num_labels=5)
    return str(exported(folder, backend="native", precision=request.param).output)


def outputs(command: list[object], **variables: str) -> bytes:
    """What it writes, with the lowest level of the operators: `linked` has no other."""
    environment = os.environ | {"EXPORTED_MODEL_KERNELS": "avx2"} | variables
    # clean start: a program in C++, or Python that writes bytes
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_outputs_are_those_of_python(linked: Path, artifact: str) -> None:
    """Bit for bit, at the same number of threads."""
    expected = outputs([*python(PYTHON), artifact])
    assert len(expected) > 1000
    assert outputs([linked, artifact]) == expected


def test_the_library_may_be_named(linked: Path, without: Path, artifact: str, native_operators: Path) -> None:
    """By an option or the environment; a program that is linked with it may name that one."""
    expected = outputs([linked, artifact])
    assert outputs([without, artifact, native_operators]) == expected
    assert outputs([without, artifact], EXPORTED_MODEL_NATIVE_LIBRARY=str(native_operators)) == expected
    (own,) = re.findall(r"libexported_model_native\S* => (\S+)", outputs(["ldd", linked]).decode())
    assert outputs([linked, artifact, own]) == expected


def test_refusals(without: Path, linked: Path, artifact: str, native_operators: Path, tmp_path: Path) -> None:
    (tmp_path / "no.so").write_text("no library")
    for command, variables, words in (
        ([without, artifact], {}, "this program was built without the native operators, and neither Options::native_"),
        ([without, artifact, tmp_path / "no.so"], {}, "cannot load "),
        ([linked, artifact, native_operators], {}, f"has the operators of another library than {native_operators}"),
        ([linked, artifact], {"EXPORTED_MODEL_KERNELS": "avx9"}, "names no level of the native operators"),
    ):
        done = run(command, **variables)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_library_that_does_not_exist_is_said_when_configuring() -> None:
    with pytest.raises(AssertionError, match=r"EXPORTED_MODEL_NATIVE_LIBRARY, /nothing\.so \(unset it"):
        app("app-nothing", "-DEXPORTED_MODEL_NATIVE_LIBRARY=/nothing.so")
