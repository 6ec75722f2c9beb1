"""Build the library of this project's own operators from `runtime/kernels/`, for the torch of this environment.

Needs a C++ compiler, CMake, and make or ninja. Imports no torch: CMake finds it by the interpreter that runs this.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from runtime.errors import NativeLibraryError
from runtime.host.requirements import minor, usable_processors

SOURCES = Path(__file__).parent.parent / "kernels"
FOLDER = SOURCES / "lib"
BUILT = "libexported_model_native.so"
# The oldest release of torch that the operators are tested with.
SINCE = (2, 8)
# The first line with the reason, of GCC, Clang or CMake.
_ERROR = re.compile(r"\berror:|^CMake Error")
_OTHERS = "export with --backend onednn or plain"


def library_of(torch_version: str) -> Path:
    """Where the library for this release of torch lies, once it was built or installed."""
    return FOLDER / f"libexported_model_native-torch{'.'.join(map(str, minor(torch_version)))}.so"


def build_problem() -> NativeLibraryError | None:
    """Why the library cannot be built here: the processor, the release of torch, a missing tool; None if it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return NativeLibraryError(f"the processor is {platform.machine()}", "x86-64 for the native operators", _OTHERS)
    version = _torch_version()
    if version is None or minor(version) < SINCE:
        found = "torch is not installed" if version is None else f"torch {version} is installed"
        since = ".".join(map(str, SINCE))
        return NativeLibraryError(found, f"torch {since} or newer for the native operators", _OTHERS)
    compilers = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
    needed = {"a C++ compiler (g++)": compilers, "cmake": ["cmake"], "make or ninja": ["ninja", "make"]}
    missing = [what for what, names in needed.items() if not any(map(_program, names))]
    if missing:
        return NativeLibraryError(
            f"missing on this machine: {', '.join(missing)}",
            "what builds the native operators",
            "install g++ by the system's packages, and `pip install cmake ninja`",
        )
    return None


def build_native(work: Path | None = None, target: Path | None = None) -> Path:
    """Compile the library; what `work` holds already and has not changed is not compiled again.

    Args:
        work: a folder for intermediate files; None takes a temporary one.
        target: the file to write; None: where the runtime looks for it.

    Returns:
        The file that was written.

    Raises:
        NativeLibraryError: `build_problem` has a reason, the compiler fails, or the file cannot be written.
    """
    version, problem = _torch_version(), build_problem()
    if problem is not None or version is None:
        raise problem or NativeLibraryError("torch is not installed", "torch")
    place: AbstractContextManager[str] = (
        tempfile.TemporaryDirectory(prefix="native-") if work is None else nullcontext(str(work))
    )
    with place as name:
        generator = ["-G", "Ninja"] if _program("ninja") and not (Path(name) / "Makefile").exists() else []
        _run(["cmake", "-S", str(SOURCES), "-B", name, *this_torch(), *generator])
        _run(["cmake", "--build", name, "--parallel", str(usable_processors())])
        return _place(Path(name) / BUILT, library_of(version) if target is None else target)


def this_torch() -> list[str]:
    """Options that make CMake take this environment's torch and the sources' own choices in a folder used before.

    CMake keeps both from run to run: another environment's torch, or the highest level of older sources, without which
    the library would leave out the new ones. The kernels include nothing of torch, and are not compiled again for
    another release.
    """
    # clean start: for CMake, which asks it for the folder of torch
    return ["-UExportedModel_*", "-UEM_NATIVE_*", f"-DPython3_EXECUTABLE={sys.executable}"]


def _torch_version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _search_path() -> str:
    """The programs of this environment, though it may not be active, then those of the system."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _program(name: str) -> str | None:
    return shutil.which(name, path=_search_path())


def _run(command: Sequence[str]) -> None:
    environment = os.environ | {"PATH": _search_path()}
    # clean start: CMake, which runs the compiler
    done = subprocess.run(
        [str(_program(command[0])), *command[1:]],
        env=environment,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        told = next((number for number, line in enumerate(lines) if _ERROR.search(line)), -1)
        # CMake says the reason in the next line.
        reason = " ".join(lines[told : told + 2] if told >= 0 and lines[told].endswith(":") else lines[told:][:1])
        raise NativeLibraryError(
            f"the native operators cannot be built: {reason or f'exit code {done.returncode}'}",
            "a C++17 compiler",
            _OTHERS,
        )


def _place(built: Path, target: Path) -> Path:
    """Put the library in its place at once: a process may have the former one in use."""
    new = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built, new)
        new.replace(target)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise NativeLibraryError(
            f"cannot write {target}: {error.strerror or error}",
            "a folder to write to",
            "give --output FILE, and set EXPORTED_MODEL_NATIVE_LIBRARY to it",
        ) from error
    return target
