"""What both commands need to run cleanly: standard streams that may be closed, and packages that may be missing.

If a program is started with a stream closed (`>&-`), the next file that it opens gets the stream's number, and whatever
is printed goes into that file. Python also has no object for that stream.
"""

from __future__ import annotations

import io
import os
import sys

from runtime.errors import ExportedModelError, ExtraMissingError
from runtime.printing import printable


def prepare() -> bool:
    """Put the null device in the place of closed streams, and let no character of an answer be one that fails.

    Called first in a command.

    Returns:
        Whether there is a standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one, as those below are taken.
            os.open(os.devnull, os.O_RDWR)
    output = sys.stdout is not None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # A label that the terminal's encoding lacks is shown by its number.
            stream.reconfigure(errors="backslashreplace")
    return output


def silence_output() -> None:
    """Nothing more is written to standard output, at the end of the program either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def one_line(error: Exception, purpose: str, remedy: str) -> str:
    """What a command says of an error.

    Args:
        error: whatever was raised.
        purpose: what a package that cannot be imported was needed for.
        remedy: what helps where it is not installed.
    """
    if isinstance(error, ImportError):
        error = _import_problem(error, purpose, remedy)
    if isinstance(error, ExportedModelError):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory ran out; expected enough for the model and what it computes; use smaller batches"
    reason = printable(" ".join(str(error).split()))[:300]
    return f"{type(error).__name__}: {reason}; expected an error with a name of its own; -v shows where it comes from"


def _import_problem(error: ImportError, purpose: str, remedy: str) -> ExtraMissingError:
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        return ExtraMissingError(f"the package {package} is not installed", f"it, {purpose}", remedy)
    return ExtraMissingError(f"a package cannot be imported ({error})", f"it, {purpose}", "install it again")
