"""The first lines of every Python process that this project starts: what it may import, and from where.

Run as `python -I launcher.py SETTINGS ARGUMENT …`; it runs the code in the settings as `__main__`. The settings are
JSON that exporter/verification/subprocesses.py writes: `code`, the project's `root` and its `packages`, the folder that
holds `torch`, folders to search `behind` all others, modules that shall be `absent`.

`-I` leaves out the current folder, PYTHONPATH and the user's site-packages: the current folder may be a model's, whose
files may have the names of modules, and none of them may run. Imports only the standard library.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _OwnPackages:
    """Finds the project's own packages, whatever else has the same names. For `sys.meta_path`."""

    def __init__(self, root: str, packages: list[str]) -> None:
        self._root = root
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The package's place; None for every other module, for which the next finders are asked."""
        return PathFinder.find_spec(name, [self._root]) if path is None and name in self._packages else None


def launch(settings: dict[str, Any], arguments: list[str]) -> None:
    """Arrange the imports, then run the code."""
    sys.meta_path.insert(0, _OwnPackages(settings["root"], settings["packages"]))
    if settings["torch"] is not None and settings["torch"] not in sys.path:
        # After the standard library, before any other torch.
        installed = (place for place, folder in enumerate(sys.path) if folder.endswith("-packages"))
        sys.path.insert(next(installed, len(sys.path)), settings["torch"])
    sys.path += [folder for folder in settings["behind"] if folder not in sys.path]
    # None makes an import fail.
    sys.modules.update(dict.fromkeys(settings["absent"]))
    sys.argv = ["-c", *arguments]
    # As for `python -c`: a module without a file.
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(compile(settings["code"], "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    launch(json.loads(sys.argv[1]), sys.argv[2:])
