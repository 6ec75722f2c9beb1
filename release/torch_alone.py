"""An environment that has torch and what torch itself needs, and no other package.

The torch is the one of the environment that runs this. Its files are linked, not copied or downloaded: PyTorch's
default build is gigabytes large.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def make(folder: Path) -> Path:
    """A new virtual environment in `folder`; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    link(folder)
    return folder / "bin/python"


def link(environment: Path) -> None:
    """Put torch and what it needs into an environment of the same Python."""
    packages = next(environment.glob("lib/python*/site-packages"))
    for found in _needed("torch"):
        for name in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            target = packages / name
            if not target.exists():
                target.symlink_to(Path(str(found.locate_file(name))))


def _needed(name: str) -> list[Distribution]:
    """The installed distribution of that name, and those that it requires on this machine, in any depth."""
    found: dict[str, Distribution] = {}
    names = [name]
    while names:
        name = names.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        requirements = map(Requirement, found[name].requires or ())
        names += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return list(found.values())
