"""Compile the C++ consumer against the torch that pip installed, a CUDA build included.

In: `--output FILE`. Out: an executable that finds torch's libraries by itself. Refuses to run without a C++
compiler, torch or the JSON headers (package nlohmann-json).

The compiler is called with torch's folders by path: CMake's `find_package(Torch)` asks for a CUDA toolkit when
torch is a CUDA build, although nothing here uses CUDA.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("check_golden.cpp")


def command(output: Path) -> list[str]:
    """The compiler's command line."""
    import torch

    root = Path(torch.__file__).parent
    json_header = importlib.metadata.distribution("nlohmann-json").locate_file("nlohmann_json/include")
    includes = [root / "include", root / "include/torch/csrc/api/include", Path(str(json_header))]
    return [
        os.environ.get("CXX", "g++"),
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Wextra",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        # System headers: torch's own warnings are not ours to mend.
        *(f"-isystem{folder}" for folder in includes),
        str(SOURCE),
        "-o",
        str(output),
        f"-L{root / 'lib'}",
        f"-Wl,-rpath,{root / 'lib'}",
        "-ltorch_cpu",
        "-lc10",
        "-ldl",
    ]


def main() -> int:
    """Compile; the compiler's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        return subprocess.run(command(output), check=False).returncode
    except (ImportError, importlib.metadata.PackageNotFoundError, FileNotFoundError) as error:
        print(f"cannot compile: {error}; run make install, and have g++ on the path", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
