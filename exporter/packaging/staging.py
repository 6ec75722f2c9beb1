"""The place where a draft grows until it may take its name.

In: the output path and whether it may be replaced. Out: a hidden folder beside the output, gone afterwards; the
finished file renamed into place. Refuses an existing output, a missing or read-only folder, a full disk.
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

from runtime.errors import OutputError, OutputExistsError


@dataclass(frozen=True)
class Workspace:
    """`draft` is the file to write; `target` is where `publish` puts it."""

    draft: Path
    target: Path
    force: bool

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a stage that writes into the workspace: system errors become named ones."""
        try:
            yield
        except OSError as error:
            raise _named(self.target, error) from error

    def publish(self) -> None:
        """Give the draft its name: an atomic rename within one folder.

        Raises:
            OutputExistsError: if another process wrote the target meanwhile, and `force` is off.
        """
        if not self.force:
            _refuse_existing(self.target)
        self.draft.replace(self.target)


@contextmanager
def workspace(output: str | os.PathLike[str], force: bool) -> Iterator[Workspace]:
    """Open it; whatever happens inside, only `publish` touches the output, and nothing else stays.

    Raises:
        OutputExistsError, OutputError
    """
    # A link stays a link: what it points to is written.
    target = Path(os.path.realpath(output))
    if target.is_dir() or os.fspath(output).endswith(os.sep):
        raise OutputError(f"{output} is a folder", "the name of a file", f"for instance -o {Path(output) / 'model.pt'}")
    try:
        if target.exists() and not target.is_file():
            raise OutputError(f"{output} is no regular file", "a file, or a name that is free", "give another -o")
        if not force:
            _refuse_existing(target)
        _sweep(target)
        holder = tempfile.TemporaryDirectory(prefix=f".{target.name}.{os.getpid()}-", dir=target.parent)
    except OSError as error:
        raise _named(target, error) from error
    with holder as folder:
        yield Workspace(Path(folder) / "model.pt", target, force)


def _sweep(target: Path) -> None:
    """Take away the folders of exports to the same target that were killed: their process is gone."""
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
    """Say in words what the system said with a number."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"the disk of {target.parent} is full",
            "room for the artifact, twice the weights while exporting",
            "free some, or choose another folder with -o",
        )
    if error.errno == errno.ENOENT and not target.parent.is_dir():
        return OutputError(f"there is no folder {target.parent}", "a folder for the output", "make it first")
    return OutputError(
        f"cannot write to {target.parent}: {error.strerror or error}",
        "a folder that can be written to",
        "choose another with -o",
    )


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise OutputExistsError(f"{target} exists", "", "give --force to replace it, or another -o")
