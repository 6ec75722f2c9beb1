"""Load and run exported transformer models, without transformers.

    import runtime

    session = runtime.load("model.pt")
    outputs = session(input_ids=ids, attention_mask=mask)

Needs torch and safetensors. `read_manifest` and the errors need neither: torch is imported when a name that needs it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime import moved
from runtime.artifact.artifact_file import read_manifest
from runtime.errors import (
    ArtifactError,
    CheckFailedError,
    ExportedModelError,
    ExportError,
    InputError,
    RequirementError,
)
from runtime.format.manifest import Manifest
from runtime.host import forking

if TYPE_CHECKING:
    from runtime.serving.generation_pool import GenerationPool
    from runtime.serving.pool import Pool
    from runtime.session import Session, load

forking.watch()
moved.watch()

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "CheckFailedError",
    "ExportError",
    "ExportedModelError",
    "GenerationPool",
    "InputError",
    "Manifest",
    "Pool",
    "RequirementError",
    "Session",
    "load",
    "read_manifest",
]


def __getattr__(name: str) -> Any:
    # Lazy (PEP 562): the session module imports torch, which takes a second. Reading a manifest does not need it.
    if name in ("Session", "load"):
        from runtime import session

        return getattr(session, name)
    if name == "Pool":
        from runtime.serving.pool import Pool

        return Pool
    if name == "GenerationPool":
        from runtime.serving.generation_pool import GenerationPool

        return GenerationPool
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
