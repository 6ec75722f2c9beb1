"""How the exporter starts fresh processes: as a worker's would be, without the packages that a worker lacks.

In: a module's name. Out: the command, and the environment. Refuses nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

import runtime

# Modules that a fresh process must do without. `None` in `sys.modules` makes their import fail.
_ABSENT = ("transformers", "click", "intel_extension_for_pytorch", "exporter")


def program(module: str) -> list[str]:
    """The command that runs `main` of a module of the runtime; its arguments follow."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({_ABSENT!r})); "
    return [sys.executable, "-c", f"{hide}from {module} import main; sys.exit(main(sys.argv[1:]))"]


def allowing(operators: Collection[str]) -> list[str]:
    """The arguments by which programs of the runtime are told of `allow_operators`."""
    return [text for name in operators for text in ("--allow-operator", name)]


def environment() -> dict[str, str]:
    """This process's, with the runtime that this exporter runs with found first."""
    root = str(Path(runtime.__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return os.environ | {"PYTHONPATH": path}
