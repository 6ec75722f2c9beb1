"""Try a wheel as a user would who has torch and nothing else: install it, run a model, ask for the exporter.

Usage: python release/try_wheel.py WHEEL ARTIFACT…

The ARTIFACTs take text and need torch and the wheel alone. Every command runs in an empty folder, and the first one
that does not do what it should ends the trial with 1. pip fetches what the wheel requires besides torch.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch_alone

RUN = """
import sys
import runtime
session = runtime.load(sys.argv[1])
vector = session(**session.text.encode(["a short text"]))["sentence_embedding"]
absent = {"transformers", "click", "exporter"} & set(sys.modules)
print(f"runtime {runtime.__version__} from {runtime.__file__}: {tuple(vector.shape)}")
sys.exit(f"imported: {absent}" if absent else 0)
"""


def main(wheel: Path, *artifacts: Path) -> None:
    """Install, run, ask."""
    with tempfile.TemporaryDirectory(prefix="try-wheel-") as name:
        python = torch_alone.make(Path(name) / "environment")
        folder = Path(name) / "empty"
        folder.mkdir()
        commands = python.parent

        def run(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
            if done.returncode != code:
                sys.exit(f"{command} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
            return done

        def refuses(*command: str | Path) -> None:
            # Torch itself warns where NumPy is missing; the command's own line is the last.
            line = run(*command, code=1).stderr.splitlines()[-1]
            print(line)
            if not line.startswith("export-model: ") or "pip install 'export-model[export]'" not in line:
                sys.exit("that should have been one line that names the extra to install")

        run(python, "-m", "pip", "install", "--quiet", wheel)
        print(run(python, "-m", "pip", "check").stdout, end="")
        for artifact in artifacts:
            print(run(commands / "run-model", "check", artifact).stdout, end="")
        print(run(python, "-m", "runtime", "--cmake-dir").stdout, end="")
        refuses(commands / "export-model", "--help")
        run(python, "-m", "pip", "install", "--quiet", f"{wheel}[text]")
        for artifact in artifacts:
            print(run(python, "-c", RUN, artifact).stdout, end="")
        refuses(commands / "export-model", "bert-base", "-o", "model.pt")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
