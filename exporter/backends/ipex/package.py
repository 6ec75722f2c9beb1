"""Import IPEX's Python package, where it can be imported beside the installed transformers."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from runtime.errors import BackendError


def import_ipex() -> Any:
    """The package `intel_extension_for_pytorch`.

    The caller has compared its version with torch's: importing a mismatched pair ends the process.

    Raises:
        BackendError: it cannot be imported. IPEX 2.8.0 imports modules of transformers that release 5.24 no longer has.
    """
    try:
        import intel_extension_for_pytorch as ipex
    except (ImportError, NameError, AttributeError) as error:
        raise BackendError(
            f"IPEX cannot be imported beside transformers {importlib.metadata.version('transformers')}: "
            f"{type(error).__name__}: {error}",
            "a transformers that IPEX 2.8.0 knows",
            "pip install 'transformers<5.24', or choose another --backend",
        ) from error
    return ipex
