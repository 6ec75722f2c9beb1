"""`python -m runtime --cmake-dir | --ipex-library`: print the paths of files that C++ programs build with and load."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runtime.errors import IpexMissingError


def main() -> int:
    """Print the requested path and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime",
        description="Print paths of files for C++ programs. To run a model: run-model.",
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--cmake-dir", action="store_true", help="the folder of ExportedModelConfig.cmake")
    choice.add_argument("--ipex-library", action="store_true", help="the library with IPEX's operators")
    if parser.parse_args().cmake_dir:
        print(Path(__file__).parent / "cpp/cmake")
        return 0
    # Imports torch, which `--cmake-dir` does not need.
    from runtime.host.ipex_library import ipex_library

    try:
        print(ipex_library())
    except IpexMissingError as error:
        print(f"python -m runtime: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
