"""Find out which packages and processor features are present, and whether they are enough for an artifact.

If they are not, the error says what is missing and which command installs it. The packages are looked up in their
metadata and never imported: importing Intel Extension for PyTorch (IPEX) beside a torch that it was not built for ends
the process, and no `except` can catch that.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import CpuFeatureError, IpexMissingError, IpexVersionError, TorchVersionError
from runtime.format.manifest import Manifest

IPEX_DISTRIBUTION = "intel-extension-for-pytorch"
CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
_LAST_PAIR = f"pip install torch==2.8.0 {IPEX_DISTRIBUTION}==2.8.0"


@dataclass(frozen=True)
class Environment:
    """Versions of the installed packages (None: not installed) and the processor's instruction sets.

    `cpu_flags` are the names in `/proc/cpuinfo`, or None if the system does not provide them.
    """

    torch: str | None
    ipex: str | None
    cpu_flags: frozenset[str] | None


def detect() -> Environment:
    """The environment of this process."""
    return Environment(_version("torch"), _version(IPEX_DISTRIBUTION), _cpu_flags())


def minor(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as `2.8.0+cpu`."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise ValueError(f"not a version number: {version!r}")
    return int(found[1]), int(found[2])


def ipex_problem(environment: Environment) -> IpexMissingError | IpexVersionError | None:
    """Why IPEX cannot be used in this environment, for any artifact; None if it can.

    An IPEX release has the minor version number of the torch release that it was compiled against.
    """
    if environment.ipex is None:
        return IpexMissingError(
            f"{IPEX_DISTRIBUTION} is not installed beside torch {environment.torch}",
            "version 2.8.0, its last release, beside torch 2.8",
            _LAST_PAIR,
        )
    found = f"{IPEX_DISTRIBUTION} {environment.ipex} is installed beside torch {environment.torch}"
    try:
        fits = environment.torch is not None and minor(environment.torch) == minor(environment.ipex)
    except ValueError:
        return IpexVersionError(found, "release numbers such as 2.8.0", _LAST_PAIR)
    if not fits:
        wanted = ".".join(map(str, minor(environment.ipex)))
        return IpexVersionError(found, f"torch {wanted} beside it", _LAST_PAIR)
    return None


def check(manifest: Manifest, environment: Environment) -> None:
    """Compare the artifact's requirements with the environment.

    Raises:
        TorchVersionError, IpexMissingError, IpexVersionError, CpuFeatureError: the first requirement not met.
    """
    _check_torch(manifest, environment)
    if manifest.requires.ipex is not None:
        _check_ipex(manifest.requires.ipex, environment)
    check_cpu(
        manifest.requires.cpu_flags, f"a {manifest.precision} artifact of the {manifest.backend} backend", environment
    )


def check_cpu(flags: tuple[str, ...], purpose: str, environment: Environment) -> None:
    """Raise CpuFeatureError if the processor lacks one of `flags`; if its flags are unknown, nothing is raised."""
    if environment.cpu_flags is None:
        return
    missing = [flag for flag in flags if flag not in environment.cpu_flags]
    if missing:
        raise CpuFeatureError(
            f"this processor lacks {', '.join(missing)}",
            f"{', '.join(flags)} for {purpose}",
            "use another machine, or export with --fp32",
        )


def _check_torch(manifest: Manifest, environment: Environment) -> None:
    wanted, rule, found = manifest.requires.torch, manifest.requires.torch_rule, environment.torch
    wanted_minor = ".".join(map(str, minor(wanted)))
    expected = f"torch {wanted_minor}" + ("" if rule == "same-minor" else " or newer")
    if found is not None:
        if minor(found) == minor(wanted):
            return
        if rule == "at-least-minor" and minor(found) > minor(wanted):
            return
    release = wanted.split("+")[0]
    raise TorchVersionError(
        f"torch {found} is installed" if found else "torch is not installed",
        f"{expected}, for which the artifact was written",
        f"pip install torch=={release}",
    )


def _check_ipex(wanted: str, environment: Environment) -> None:
    remedy = f"pip install {IPEX_DISTRIBUTION}=={wanted}, or export with --backend plain"
    if environment.ipex is None:
        raise IpexMissingError(
            f"{IPEX_DISTRIBUTION} is not installed", f"version {wanted}, whose operators the artifact uses", remedy
        )
    if environment.ipex != wanted:
        raise IpexVersionError(
            f"{IPEX_DISTRIBUTION} {environment.ipex} is installed",
            f"version {wanted}, whose operators the artifact uses",
            remedy,
        )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_flags() -> frozenset[str] | None:
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return None


def usable_processors() -> int:
    """The number of processors that this process may use, by its affinity and its control groups."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *_group_limits()]))


def _group_limits() -> Iterator[int]:
    """The limit, in whole processors, of each control group of this process and of their parents that has one."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = CGROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            root, names = CGROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        own = root / path.lstrip("/")
        # In a container the path may be relative to the host's root; the container's own group is then the root.
        for folder in [own, *own.parents][: len(own.parts) - len(root.parts) + 1]:
            try:
                quota, period = " ".join((folder / name).read_text() for name in names).split()
                if int(quota) > 0:  # -1: no limit
                    yield int(quota) // int(period)
            except (OSError, ValueError, ZeroDivisionError):  # no such group; "max"
                continue
