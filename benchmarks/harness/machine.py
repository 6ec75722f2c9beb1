"""The machine that a benchmark runs on: its name, its memory, the versions of what is compared.

The only module of the benchmarks that imports psutil; `.venv-peers` has it too, for the peers' workers.
"""

from __future__ import annotations

import importlib.metadata
import platform
import resource
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import places

_PACKAGES = ("torch", "intel-extension-for-pytorch", "transformers", "numpy")
_PEERS = ("openvino", "onnxruntime", "onnx", "nncf")


def description() -> str:
    """Cores and processor, as the results name the machine."""
    return f"{psutil.cpu_count()} cores, {processor()}"


def processor() -> str:
    """The processor as the kernel names it, which neither psutil nor `platform` tells on Linux."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def level() -> str:
    """The processor's level of instructions: `amx`, `avx512` or `avx2`. Tables of different levels stay apart."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "amx" if "amx_tile" in flags else "avx512" if "avx512dq" in flags else "avx2"


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most that this process had resident; psutil has no such figure on Linux.

    Linux counts the process that started this one too, until this one has had more than that: start it from a small
    one.
    """
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free_bytes() -> int:
    """Memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def load() -> float:
    """Processes that wanted to run, in the mean of the last minute."""
    return float(psutil.getloadavg()[0])


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of installed packages, by name."""
    return {name: importlib.metadata.version(name) for name in packages}


def surroundings() -> dict[str, Any]:
    """The machine, its system, and the versions of what is compared, ready for JSON."""
    return {
        "machine": description(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": versions(_PACKAGES) | versions_in(places.PEERS, _PEERS),
    }


def versions_in(environment: Path, packages: Sequence[str]) -> dict[str, str]:
    """Of packages of another environment, by name; without those that it does not have."""
    found = {}
    for folder in environment.glob("lib/python*/site-packages"):
        for package in importlib.metadata.distributions(path=[str(folder)]):
            if package.metadata["Name"] in packages:
                found[package.metadata["Name"]] = package.version
    return {name: found[name] for name in packages if name in found}
