"""How the exporter starts fresh processes: as a worker's would be, without the packages that a worker lacks.

In: nothing. Out: what to hide, and the environment. Refuses nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import runtime

# Modules that the fresh process must do without. `None` in `sys.modules` makes their import fail.
ABSENT = ("transformers", "click", "intel_extension_for_pytorch", "exporter")


def environment() -> dict[str, str]:
    """This process's, with the runtime that this exporter runs with found first."""
    root = str(Path(runtime.__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return os.environ | {"PYTHONPATH": path}
