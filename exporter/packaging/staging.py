"""The hidden folder beside the output in which the file is written before it gets its name.

An existing output, a missing or read-only folder, and a full disk are refused. Whatever happens, the folder is removed
afterwards, and only a finished file is renamed into place.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.artifact.artifact_file import read_manifest
from runtime.errors import ExportedModelError, FormatVersionError, OutputError, OutputExistsError


@dataclass(frozen=True)
class Workspace:
    """`draft` is the file to write; `target` is where `publish` puts it."""

    draft: Path
    target: Path
    force: bool

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a stage that writes into the workspace: system errors become OutputErrors."""
        try:
            yield
        except OSError as error:
            raise _named(self.target, error) from error

    def publish(self) -> None:
        """Rename the draft to the output: atomic, since both are in the same folder's file system.

        Raises:
            OutputExistsError: another process wrote the output meanwhile, and `force` is off.
        """
        if not self.force:
            _refuse_existing(self.target)
        self.draft.replace(self.target)


@contextmanager
def workspace(output: str | os.PathLike[str], force: bool) -> Iterator[Workspace]:
    """Make the folder. Only `publish` changes the output, and nothing else stays afterwards.

    Raises:
        OutputExistsError, OutputError
    """
    # If the output is a symbolic link, its target is written.
    target = Path(os.path.realpath(output))
    if target.is_dir() or os.fspath(output).endswith(os.sep):
        raise OutputError(f"{output} is a folder", "the name of a file", f"for instance -o {Path(output) / 'model.pt'}")
    try:
        if target.exists() and not target.is_file():
            raise OutputError(f"{output} is not a regular file", "a file, or a new name", "give another -o")
        if not force:
            _refuse_existing(target)
        _remove_abandoned(target)
        holder = tempfile.TemporaryDirectory(prefix=f".{target.name}.{os.getpid()}-", dir=target.parent)
    except OSError as error:
        raise _named(target, error) from error
    with holder as folder:
        yield Workspace(Path(folder) / "model.pt", target, force)


def expect_no_source(output: str | os.PathLike[str], model: str) -> None:
    """Refuse to write over a file of the model: `force` is for files of this project.

    Raises:
        OutputError: the output is a file in the model's folder, and no exported one.
    """
    target, folder = Path(os.path.realpath(output)), Path(os.path.realpath(Path(model).expanduser()))
    if folder.is_dir() and folder in target.parents and target.is_file():
        try:
            read_manifest(target)
        except FormatVersionError:
            return  # a file of ours, of another release
        except ExportedModelError as error:
            raise OutputError(f"{output} is a file of the model", "a new name", "give another -o") from error


def _remove_abandoned(target: Path) -> None:
    """Remove the folders that killed exports to the same output have left: their process no longer exists."""
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*-*"):
        owner = folder.name.removeprefix(f".{target.name}.").partition("-")[0]
        if (
            owner.isdecimal()
            and folder.is_dir()
            and not Path(f"/proc/{owner}").exists()
            and Path("/proc/self").exists()
        ):
            shutil.rmtree(folder, ignore_errors=True)


def _named(target: Path, error: OSError) -> OutputError:
    """The error for a system error."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"the disk of {target.parent} is full",
            "free space of twice the weights while exporting",
            "free some, or choose another folder with -o",
        )
    if error.errno == errno.ENOENT and not target.parent.is_dir():
        return OutputError(f"there is no folder {target.parent}", "an existing folder", "create it first")
    return OutputError(
        f"cannot write to {target.parent}: {error.strerror or error}",
        "a folder that can be written to",
        "choose another with -o",
    )


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise OutputExistsError(f"{target} exists", "", "give --force to replace it, or another -o")
