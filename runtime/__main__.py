"""`python -m runtime --cmake-dir`: where this package keeps what programs in C++ build with.

In: a command line. Out: a path. Refuses other arguments (exit code 2). Loads no torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime", description="Say where the C++ library lies. To run a model: run-model."
    )
    parser.add_argument(
        "--cmake-dir", action="store_true", required=True, help="the folder of ExportedModelConfig.cmake"
    )
    parser.parse_args()
    print(Path(__file__).parent / "cpp/cmake")
    return 0


if __name__ == "__main__":
    sys.exit(main())
