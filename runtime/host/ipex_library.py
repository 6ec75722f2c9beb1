"""Register IPEX's operators with PyTorch, without importing IPEX's Python package.

`runtime.host.requirements` must have checked before that the installed IPEX fits the installed torch. This is the only
module that knows where the library lies.

Loading it takes a small part of the time of `import intel_extension_for_pytorch` (`make bench-start`). It adds
`torch.ops.ipex` and JIT passes that fuse operators, and it replaces some of PyTorch's own CPU kernels (matmul,
layer_norm and others) for the whole process.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from runtime.errors import IpexMissingError
from runtime.host.requirements import IPEX_DISTRIBUTION

logger = logging.getLogger("runtime")

_LIBRARY = "intel_extension_for_pytorch/lib/libintel-ext-pt-cpu.so"
# PyTorch prints this from C++, past Python's warnings, whenever a library replaces one of its kernels.
_EXPECTED_NOTICE = "Warning only once for all operators,  other operators may also be overridden."


def ipex_library() -> Path:
    """The path of the library with IPEX's operators.

    Raises:
        IpexMissingError: if IPEX, or the library in it, is not there.
    """
    remedy = f"pip install --force-reinstall --no-deps {IPEX_DISTRIBUTION}==2.8.0"
    try:
        path = Path(str(importlib.metadata.distribution(IPEX_DISTRIBUTION).locate_file(_LIBRARY)))
    except importlib.metadata.PackageNotFoundError:
        raise IpexMissingError(f"{IPEX_DISTRIBUTION} is not installed", "", remedy) from None
    if not path.is_file():
        raise IpexMissingError(f"{path} does not exist", f"the operator library of {IPEX_DISTRIBUTION}", remedy)
    return path


def register_ipex() -> None:
    """Load IPEX's operators into this process; the second call does nothing.

    Raises:
        IpexMissingError: if the library is absent or cannot be loaded.
    """
    library = str(ipex_library())
    if library in torch.ops.loaded_libraries:
        return
    try:
        with _without_expected_notice():
            torch.ops.load_library(library)
    except OSError as error:
        raise IpexMissingError(
            f"cannot load {library}: {error}",
            f"a {IPEX_DISTRIBUTION} that fits torch {torch.__version__}",
            "install the pair again",
        ) from error
    # Raised once, at the first fusion: upstream's advice to its own users to move to torch.compile.
    warnings.filterwarnings("ignore", message="JIT pass will be deprecated", category=UserWarning)
    # Raised at every one-dimensional convolution; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="Conv1d channels last support will be deprecated", category=UserWarning)
    # Raised in training: IPEX's layer norm has no gradient of its own, but what it calls has (tests/test_trainer.py).
    warnings.filterwarnings("ignore", message="aten::layer_norm: an autograd kernel was not registered")
    logger.debug("loaded %s: some of PyTorch's CPU kernels are now IPEX's, for the whole process", library)


@contextlib.contextmanager
def _without_expected_notice() -> Iterator[None]:
    """Suppress PyTorch's notice about replaced kernels on standard error; other output is passed on."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError):  # the process has no standard error
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            caught.seek(0)
            text = caught.read()
            if text and _EXPECTED_NOTICE.encode() not in text:
                os.write(2, text)
