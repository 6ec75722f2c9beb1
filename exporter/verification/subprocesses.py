"""How this project starts Python processes: none of them can import anything from the current folder.

A plain `python -c` or `python -m` searches the current folder before the standard library, and PYTHONPATH before torch.
Someone who exports from inside a model folder would run the files in it that have the names of modules. Therefore every
process starts with `exporter/verification/launcher.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import runtime

# The folder with the packages `runtime` and `exporter` and, in a checkout, the others.
ROOT = Path(runtime.__file__).resolve().parent.parent
_PACKAGES = ("runtime", "exporter", "tests", "benchmarks")
# Modules that a process like a worker's must not be able to import.
ABSENT = ("transformers", "click", "intel_extension_for_pytorch", "exporter")


def python(
    code: str, *, absent: Sequence[str] = (), flags: Sequence[str] = (), executable: str = sys.executable
) -> list[str]:
    """The command that runs code as `python -c` does, without the current folder.

    Args:
        code: Python code; `sys.argv[1:]` are the arguments that follow the command.
        absent: modules whose import shall fail.
        flags: of the interpreter, such as `-W`, `error`.
        executable: an interpreter, which may have other packages. The one of this process also imports this process's
            torch and, after its own modules, those of the folders that this process searches.
    """
    same = executable == sys.executable
    settings = {
        "code": code,
        "root": str(ROOT),
        "packages": _PACKAGES,
        "torch": _torch_folder() if same else None,
        "behind": _elsewhere(sys.path) if same else [],
        "absent": absent,
    }
    # The UTF-8 mode of this process: with -I the new one ignores the variable PYTHONUTF8.
    encoding = ("-X", f"utf8={sys.flags.utf8_mode}")
    launcher = str(Path(__file__).with_name("launcher.py"))
    return [executable, "-I", *encoding, *flags, launcher, json.dumps(settings)]


def module(
    name: str, *, absent: Sequence[str] = (), flags: Sequence[str] = (), executable: str = sys.executable
) -> list[str]:
    """The command that runs a module as `python -m` does; arguments as for `python`."""
    code = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return python(code, absent=absent, flags=flags, executable=executable)


def script(path: Path, *, flags: Sequence[str] = ()) -> list[str]:
    """The command that runs a file; arguments as for `python`. Modules beside the file are not found."""
    return python(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')", flags=flags)


def worker(name: str) -> list[str]:
    """The command that runs a module of the runtime as in a worker: without the packages that only exports need."""
    return module(name, absent=ABSENT)


def allowing(operators: Collection[str]) -> list[str]:
    """The arguments for programs of the runtime that stand for `allow_operators`."""
    return [text for name in operators for text in ("--allow-operator", name)]


@contextmanager
def away() -> Iterator[None]:
    """A context in which processes that `multiprocessing` starts begin in the project's folder.

    They inherit this process's `sys.path` without the current folder; folders of PYTHONPATH come last. For programs
    with one thread: the whole process changes its current folder.
    """
    folder, path, variable = Path.cwd(), list(sys.path), os.environ.pop("PYTHONPATH", None)
    named = {str(Path(entry).absolute()) for entry in (variable or "").split(os.pathsep)}
    kept = _elsewhere(path)
    sys.path[:] = [entry for entry in kept if entry not in named] + [entry for entry in kept if entry in named]
    os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        if variable is not None:
            os.environ["PYTHONPATH"] = variable


def _torch_folder() -> str | None:
    """The folder of this process's torch; on some clusters PYTHONPATH names it."""
    found = importlib.util.find_spec("torch")
    folders = (found.submodule_search_locations or []) if found is not None else []
    return next(iter(_elsewhere([str(Path(folder).parent) for folder in folders])), None)


def _elsewhere(path: Sequence[str]) -> list[str]:
    """The absolute entries without the current folder, which stays if it is the project's own."""
    current = Path.cwd().resolve()
    absolute = [(entry, Path(entry).resolve()) for entry in path if Path(entry).is_absolute()]
    return [entry for entry, folder in absolute if folder == ROOT or folder != current]
