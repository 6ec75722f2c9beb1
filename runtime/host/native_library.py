"""Register the operators of this project (`runtime/kernels/`) with PyTorch.

The library is built for one minor release of torch. The wheel brings those of some releases, `make install` builds one,
and so does `python -m runtime --build-native`. It is looked for at the environment variable
EXPORTED_MODEL_NATIVE_LIBRARY, then in `runtime/kernels/lib/`.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from runtime.errors import NativeLibraryError
from runtime.host.native_build import library_of

VARIABLE = "EXPORTED_MODEL_NATIVE_LIBRARY"
# Names a level of instructions for the operators, for tests; unset, it is the highest that the processor has.
LEVEL_VARIABLE = "EXPORTED_MODEL_KERNELS"
_REMEDY = "build it with `python -m runtime --build-native` (needs g++ and cmake), or export with --backend onednn"


def native_library() -> Path:
    """The path of the library for the torch of this process, which may not exist."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else library_of(torch.__version__)


def register_native(version: int | None = None) -> int:
    """Load the operators into this process; the second call loads nothing.

    Args:
        version: of the operators, as the artifact needs it; None takes any.

    Returns:
        The version of the operators.

    Raises:
        NativeLibraryError: the library is absent, cannot be loaded or used here, or has another version.
    """
    path = native_library()
    if not path.is_file():
        raise NativeLibraryError(f"{path} does not exist", "the library of this project's own operators", _REMEDY)
    library = str(path)
    if library not in torch.ops.loaded_libraries and hasattr(torch.ops.em_native, "version"):
        # To register operators twice would end the process.
        raise NativeLibraryError(
            f"this process has the operators of another library than {library}",
            f"one library, the same whenever {VARIABLE} is read",
        )
    try:
        if library not in torch.ops.loaded_libraries:
            torch.ops.load_library(library)
        found = int(torch.ops.em_native.version())
    except (OSError, RuntimeError) as error:
        # The first line is the reason; PyTorch's stack follows.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NativeLibraryError(
            f"cannot use {library}: {reason}", f"a library built for torch {torch.__version__}", _REMEDY
        ) from error
    if version not in (None, found):
        raise NativeLibraryError(f"{library} has version {found} of the operators", f"version {version}", _REMEDY)
    return found


def native_levels() -> list[str]:
    """The levels of instructions that the operators can use on this processor, the lowest first.

    Raises:
        NativeLibraryError: as `register_native`.
    """
    register_native()
    return list(torch.ops.em_native.levels())
