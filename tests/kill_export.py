"""End exports with SIGKILL at random moments and check the files that they leave.

Prints one line per kill. The exit code is 1 if the target was ever anything but the whole old file or the whole new
one. `make kill` runs it 50 times; tests/test_export_model.py runs it a few times.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [str(Path(sys.executable).parent / "export-model"), "--backend", "plain", "--quiet", "--force"]
RUN_MODEL = str(Path(sys.executable).parent / "run-model")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    # clean start: the project's own commands
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "model.pt"
        start = time.perf_counter()
        subprocess.run([*COMMAND, options.folder, "-o", str(target)], check=True)
        whole = time.perf_counter() - start
        new = digest(target)
        finished = 0
        for number in range(options.times):
            target.write_text("the old file")
            old = digest(target)
            process = subprocess.Popen([*COMMAND, options.folder, "-o", str(target)], start_new_session=True)
            moment = moments.uniform(0, whole)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            found = digest(target)
            finished += found == new
            state = {old: "old file whole", new: "new file whole"}.get(found, "NEITHER")
            print(f"{number + 1:>3}  killed after {moment:5.2f} s of {whole:.2f}: {state}", flush=True)
            if state == "NEITHER":
                # Digests that agree mean that another whole file stands there: the code has changed meanwhile.
                sys.exit(subprocess.run([RUN_MODEL, "inspect", "--verify", str(target)], check=False).returncode or 1)
        left = sorted(path.name for path in Path(name).iterdir())
        # The next export takes away what a killed one left.
        subprocess.run([*COMMAND, options.folder, "-o", str(target)], check=True)
        rest = sorted(path.name for path in Path(name).iterdir())
        print(f"{options.times} kills, {finished} after the rename; left before the last export: {len(left)} entries")
        if rest != ["model.pt"] or digest(target) != new:
            sys.exit(f"left behind: {rest}")


if __name__ == "__main__":
    main()
