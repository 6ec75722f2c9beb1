"""Importing a module by its name from before format 2 raises an error that tells the new name.

Only `runtime.__all__`, `exporter.__all__` and the names in docs/versioning.md are meant to be imported. The modules
listed here are others that documents or examples once showed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "exporter.adapter": "exporter.tracing.adapter",
    "exporter.calibration_file": "exporter.calibration.dataset",
    "exporter.report": "exporter.packaging.report",
    "exporter.request": "exporter.config.request",
    "exporter.source": "exporter.loading.loader",
    "exporter.tune": "exporter.selection.autotune",
    "exporter.verify": "exporter.verification.verify",
    "runtime.answers": "runtime.commands.json_output",
    "runtime.archive": "runtime.artifact.zip_reader",
    "runtime.check": "runtime.verification.compare",
    "runtime.cli": "runtime.commands.main",
    "runtime.environment": "runtime.host.requirements",
    "runtime.gate": "runtime.verification.worker",
    "runtime.golden": "runtime.format.golden",
    "runtime.manifest": "runtime.format.manifest",
    "runtime.ops": "runtime.host.ipex_library",
    "runtime.torchscript": "runtime.host.torchscript",
}


class _Moved:
    """An entry at the end of `sys.meta_path`: Python asks it for modules that no other finder knows."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Always None: it finds no modules.

        Raises:
            ModuleNotFoundError: the module has another name now.
        """
        if name in MOVED:
            raise ModuleNotFoundError(
                f"{name} is now {MOVED[name]}; expected imports from `runtime` or `exporter`, whose names are stable "
                "(docs/versioning.md)",
                name=name,
            )
        return None


def watch() -> None:
    """Install the finder; called once, at import."""
    sys.meta_path.append(_Moved())
