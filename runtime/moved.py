"""Modules that had other names before format 2: whoever imports one by its old name is told the new one.

Only `runtime.__all__`, `exporter.__all__` and what docs/versioning.md names are meant to be imported; these are the
others that documents or examples once showed.
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
    """The last of `sys.meta_path`: asked for modules that no other finder knows."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, for it finds nothing.

        Raises:
            ModuleNotFoundError: the module has another name now.
        """
        if name in MOVED:
            raise ModuleNotFoundError(
                f"{name} is now {MOVED[name]}; expected imports from `runtime` or `exporter`, whose names stay "
                "(docs/versioning.md)",
                name=name,
            )
        return None


def watch() -> None:
    """Have old names told of, from now on."""
    sys.meta_path.append(_Moved())
