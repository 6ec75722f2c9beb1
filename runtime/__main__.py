"""`python -m runtime`: paths of files that C++ programs build with and load, and the build of the native operators."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runtime.errors import RequirementError
from runtime.host import native_build

# The exit code if the machine or the environment cannot build the operators; `make install` then goes on without them.
CANNOT_BUILD = 3


def main() -> int:
    """Do what is asked and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime",
        description="Print paths of files for C++ programs; build the native operators. To run a model: run-model.",
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--cmake-dir", action="store_true", help="the folder of ExportedModelConfig.cmake")
    choice.add_argument("--ipex-library", action="store_true", help="the library with IPEX's operators")
    choice.add_argument("--native-library", action="store_true", help="the library with this project's own operators")
    choice.add_argument(
        "--build-native",
        action="store_true",
        help="build that library for the installed torch (a minute; needs g++ and cmake), and print its path; the exit "
        f"code is {CANNOT_BUILD} if something needed is missing",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="for --build-native: where to write it")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for --build-native: keep intermediate files here")
    options = parser.parse_args()
    if not options.build_native and (options.output or options.work):
        parser.error("--output and --work are for --build-native")
    try:
        if options.build_native:
            problem = native_build.build_problem()
            if problem is not None:
                print(f"python -m runtime: the native operators are not built: {problem}", file=sys.stderr)
                return CANNOT_BUILD
            print(native_build.build_native(options.work, options.output))
        else:
            print(_path(options))
    except RequirementError as error:
        print(f"python -m runtime: {error}", file=sys.stderr)
        return 1
    return 0


def _path(options: argparse.Namespace) -> Path:
    if options.cmake_dir:
        return Path(__file__).parent / "cpp/cmake"
    # These import torch, which `--cmake-dir` does not need.
    from runtime.host import ipex_library, native_library

    if options.ipex_library:
        return ipex_library.ipex_library()
    native_library.register_native()
    return native_library.native_library()


if __name__ == "__main__":
    sys.exit(main())
