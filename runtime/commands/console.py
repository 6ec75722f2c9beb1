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
    """Replace closed streams by the null device, and let output replace characters that the terminal cannot encode.

    A command calls this first.

    Returns:
        Whether there is a standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # open takes the lowest free number, which is this one, since those below are in use.
            os.open(os.devnull, os.O_RDWR)
    output = sys.stdout is not None
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks is shown as its escape.
            stream.reconfigure(errors="backslashreplace")
    return output


def silence_output() -> None:
    """Discard all further output, including what Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def one_line(error: Exception, purpose: str, remedy: str) -> str:
    """The message of an error, in one line.

    Args:
        error: any error.
        purpose: what a package is needed for, if the error is that it cannot be imported: "to export".
        remedy: what to do if the package is not installed.
    """
    if isinstance(error, ImportError):
        error = _import_problem(error, purpose, remedy)
    if isinstance(error, ExportedModelError):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory ran out; use smaller batches, or a machine with more memory"
    reason = printable(" ".join(str(error).split()))[:300]
    return f"unexpected {type(error).__name__}: {reason}; -v shows the traceback"


def _import_problem(error: ImportError, purpose: str, remedy: str) -> ExtraMissingError:
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        return ExtraMissingError(f"the package {package} is needed {purpose} and is not installed", "", remedy)
    return ExtraMissingError(f"a package that is needed {purpose} cannot be imported ({error})", "", "install it again")
