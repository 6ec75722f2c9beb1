"""What is packaged: every file of both packages and nothing else, and the version from one place."""

from __future__ import annotations

import email
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import runtime
from exporter.verification.subprocesses import python
from tests.conftest import ROOT

PACKAGES = ("exporter", "runtime")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"


def build(source: Path, kind: str, folder: Path) -> Path:
    """The wheel or the source archive (`sdist`) of a folder, built without a network."""
    command = [*python(BUILD), kind, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a copy: setuptools writes beside what it packages."""
    copy, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return build(copy, "sdist", folder)


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive's folder, so that this has all that the wheel needs."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(unpacked: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(unpacked, "wheel", unpacked.parent))


def test_the_wheel_has_every_file_of_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert {"runtime/py.typed", "runtime/cpp/include/exported_model/operators.def"} <= expected
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected


def test_a_wheel_with_libraries_is_for_one_platform(unpacked: Path, tmp_path: Path) -> None:
    """And for every Python 3; without them, for any platform. Their files lie beside the others."""
    library = unpacked / "runtime/kernels/lib/libexported_model_native-torch2.8.so"
    assert not library.parent.exists(), "a library is in the source archive"
    assert build(unpacked, "wheel", tmp_path).name.endswith("-py3-none-any.whl")
    library.parent.mkdir()
    library.write_bytes(b"a library")
    try:
        built = build(unpacked, "wheel", tmp_path)
    finally:
        shutil.rmtree(library.parent)
    assert built.name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(built) as files:
        assert files.read("runtime/kernels/lib/libexported_model_native-torch2.8.so") == b"a library"
        (described,) = [files.read(name).decode() for name in files.namelist() if name.endswith(".dist-info/WHEEL")]
    assert "Root-Is-Purelib: false" in described and "Tag: py3-none-linux_x86_64" in described


def test_the_source_archive_has_no_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "pyproject.toml"} <= files
    assert not [name for name in files if name.startswith("tests/")]


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = email.message_from_bytes(wheel.read(name))
    readme = told.get_payload(decode=True)
    assert (told["Name"], told["Version"]) == ("export-model", runtime.__version__)
    assert (told["License-Expression"], told.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])
    required = {line.partition(">=")[0] for line in told.get_all("Requires-Dist", []) if ";" not in line}
    assert required == {"torch", "safetensors"}
    assert readme == (ROOT / "README.md").read_bytes()


def test_the_version_stands_in_one_place() -> None:
    """Files from which a version is read: pyproject.toml and CMake take it from there."""
    for name in ("pyproject.toml", "runtime/cpp/CMakeLists.txt", "Makefile", "README.md"):
        assert f'"{runtime.__version__}"' not in (ROOT / name).read_text(), name
        assert f"VERSION {runtime.__version__}" not in (ROOT / name).read_text(), name
