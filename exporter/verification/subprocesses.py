"""How this project starts Python processes: none can import anything from the current folder.

In: code, a module or a script. Out: the command, whose arguments follow. `exporter/verification/launcher.py` is what
runs first there.

A fresh `python -c` or `python -m` searches the current folder before the standard library, and PYTHONPATH before torch.
Whoever exports from inside a model folder would run the files in it that have the names of modules.
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

# The folder that holds the runtime, this package and, in a checkout, the others.
ROOT = Path(runtime.__file__).resolve().parent.parent
_PACKAGES = ("runtime", "exporter", "tests", "benchmarks")
# Modules that a fresh process must do without where it stands for a worker.
ABSENT = ("transformers", "click", "intel_extension_for_pytorch", "exporter")


def python(
    code: str, *, absent: Sequence[str] = (), flags: Sequence[str] = (), executable: str = sys.executable
) -> list[str]:
    """The command that runs code as `python -c` does, away from the current folder.

    Args:
        code: of Python; `sys.argv[1:]` are the arguments that follow.
        absent: modules whose import shall fail.
        flags: of the interpreter, such as `-W`, `error`.
        executable: an interpreter, which may have other packages. This very one imports the torch of this process, and
            also finds, behind its own modules, those of the folders that this process searches.
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
    # What PYTHONUTF8 and the locale came to here; -I makes the new process ignore the variable.
    encoding = ("-X", f"utf8={sys.flags.utf8_mode}")
    launcher = str(Path(__file__).with_name("launcher.py"))
    return [executable, "-I", *encoding, *flags, launcher, json.dumps(settings)]


def module(
    name: str, *, absent: Sequence[str] = (), flags: Sequence[str] = (), executable: str = sys.executable
) -> list[str]:
    """The command that runs a module as `python -m` does; otherwise as `python`."""
    code = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return python(code, absent=absent, flags=flags, executable=executable)


def script(path: Path, *, flags: Sequence[str] = ()) -> list[str]:
    """The command that runs a file; otherwise as `python`. Modules beside the file are not found."""
    return python(f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')", flags=flags)


def worker(name: str) -> list[str]:
    """The command that runs a module of the runtime in a process like a worker's: without the exporter's packages."""
    return module(name, absent=ABSENT)


def allowing(operators: Collection[str]) -> list[str]:
    """The arguments by which programs of the runtime are told of `allow_operators`."""
    return [text for name in operators for text in ("--allow-operator", name)]


@contextmanager
def away() -> Iterator[None]:
    """While it lasts, processes that `multiprocessing` starts begin in the project's folder.

    They inherit this process's `sys.path` without the current folder, what PYTHONPATH names behind all else. For
    programs of one thread: the current folder is that of the whole process.
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
    """Where this process's torch lies: a folder named by PYTHONPATH, on some clusters."""
    found = importlib.util.find_spec("torch")
    folders = (found.submodule_search_locations or []) if found is not None else []
    return next(iter(_elsewhere([str(Path(folder).parent) for folder in folders])), None)


def _elsewhere(path: Sequence[str]) -> list[str]:
    """The entries that neither are nor depend on the current folder, but where that is the project's own."""
    here = Path.cwd().resolve()
    absolute = [(entry, Path(entry).resolve()) for entry in path if Path(entry).is_absolute()]
    return [entry for entry, folder in absolute if folder == ROOT or folder != here]
