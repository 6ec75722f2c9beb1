"""Building the library of native operators: what is missing is said in a line, and what is built fits every machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.verification.subprocesses import module
from runtime.errors import NativeLibraryError
from runtime.host import native_build
from runtime.host.native_build import build_native, build_problem
from tests.conftest import BIN, ROOT, run
from tests.support.native import alone_in_work

pytestmark = pytest.mark.cpp

BUILD = [*module("runtime"), "--build-native"]


@pytest.mark.usefixtures("native_operators")
def test_a_second_build_compiles_nothing(tmp_path: Path) -> None:
    with alone_in_work() as work:
        if not list(work.rglob("*.o")):
            pytest.skip("the library was built elsewhere")
        build_native(work, tmp_path / "first.so")
        before = {path: path.stat().st_mtime for path in work.rglob("*.o")}
        target = build_native(work, tmp_path / "new/library.so")
        assert {path: path.stat().st_mtime for path in work.rglob("*.o")} == before
        assert target.read_bytes() == (tmp_path / "first.so").read_bytes()
        # What CMake remembers of a build of fewer levels does not count.
        cmake = shutil.which("cmake", path=f"{BIN}:{os.environ['PATH']}")
        # clean start: CMake
        subprocess.run([str(cmake), work, "-DEM_NATIVE_HIGHEST=avx2"], capture_output=True, check=True)
        build_native(work, target)
        assert {path: path.stat().st_mtime for path in work.rglob("*.o")} == before
        assert target.read_bytes() == (tmp_path / "first.so").read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["library.so"]


def test_the_library_names_no_folder(native_operators: Path) -> None:
    """It is carried to other machines in a wheel: it finds libtorch because that is loaded."""
    # clean start: a program of the system
    told = subprocess.run(["readelf", "-d", native_operators], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", told))
    assert {"libtorch_cpu.so", "libc10.so"} <= needed
    system = ("libstdc++.so", "libm.so", "libgcc_s.so", "libc.so", "ld-linux-x86-64.so")
    assert not [name for name in needed if not name.startswith(("libtorch_cpu.so", "libc10.so", *system))]
    assert "RUNPATH" not in told and "RPATH" not in told
    assert str(ROOT).encode() not in native_operators.read_bytes()


def test_missing_tools_are_said_in_one_line(tmp_path: Path) -> None:
    """The exit code tells `make install` to go on without the operators."""
    # Beside the interpreter lies the CMake that pip installed; a copy of the environment has none.
    done = run(BUILD, PATH=str(tmp_path), CXX="absent-compiler")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(
        "python -m runtime: the native operators are not built: missing on this machine: a C++ compiler (g++)"
    )
    assert "install g++ by the system's packages" in done.stderr


@pytest.mark.parametrize("version", ["1.13.1", "2.7.1+cpu"])
def test_an_old_torch(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(NativeLibraryError, match=rf"^torch {re.escape(version)} is installed; expected torch 2\.8 or"):
        build_native()


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert str(build_problem()).startswith("the processor is aarch64; expected x86-64")


def test_sources_that_do_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_build, "SOURCES", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text('cmake_minimum_required(VERSION 3.18)\nmessage(FATAL_ERROR "no")\n')
    with pytest.raises(NativeLibraryError, match=r"cannot be built: CMake Error at .* \(message\): no; expected"):
        build_native()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(native_build, "_run", lambda _: None)
    with pytest.raises(NativeLibraryError, match=r"^cannot write .*/file/library\.so: File exists; .*--output FILE"):
        build_native(tmp_path, tmp_path / "file/library.so")


def test_options_of_the_build_need_it() -> None:
    done = run([*module("runtime"), "--cmake-dir", "--output", "a.so"])
    assert done.returncode == 2 and "--output and --work are for --build-native" in done.stderr


def test_the_path_is_printed(native_operators: Path) -> None:
    done = run([*module("runtime"), "--native-library"])
    assert done.stdout.strip() == str(native_operators)
    done = run([*module("runtime"), "--native-library"], EXPORTED_MODEL_NATIVE_LIBRARY="/nothing.so")
    assert done.returncode == 1
    assert done.stderr.startswith("python -m runtime: /nothing.so does not exist; expected the library of this project")
