"""Register the operators of this project (`runtime/kernels/`) with PyTorch.

The library is built for one minor release of torch (`make native`). It is looked for at the environment variable
EXPORTED_MODEL_NATIVE_LIBRARY, then in `runtime/kernels/lib/`. This is the only module that knows where it lies.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from runtime.errors import NativeLibraryError
from runtime.host.requirements import minor

VARIABLE = "EXPORTED_MODEL_NATIVE_LIBRARY"
FOLDER = Path(__file__).parent.parent / "kernels/lib"
_REMEDY = "build it with `make native` in a checkout, or export with another backend"


def native_library() -> Path:
    """The path of the library for the torch of this process, which may not exist."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    return FOLDER / f"libexported_model_native-torch{'.'.join(map(str, minor(torch.__version__)))}.so"


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
