"""The steps of the Dockerfile without a container engine, in a temporary folder.

Usage: python release/try_image.py MODEL

What the Dockerfile runs is run, and what it copies is copied, below a folder that stands for the image's root; torch is
linked from this environment and not installed. Then the worker is started, its health checked, a text answered, and the
worker ended by SIGTERM. Left out, as it takes an engine: the base image, and the user without rights.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch_alone

ROOT = Path(__file__).resolve().parent.parent
# Folders of the image that the steps write to.
FOLDERS = re.compile(r"/(?=(opt|srv)/)")
START_S = 120


class Steps:
    """The Dockerfile's instructions, carried out below `root`."""

    def __init__(self, root: Path, model: str) -> None:
        self.root = root
        self.arguments = {"MODEL": model}
        self.command: list[str] = []
        self.health: list[str] = []

    def take(self, instruction: str, rest: str) -> None:
        """Carry out one; an instruction that is not known ends the trial."""
        if instruction == "RUN":
            self.run(rest)
        elif instruction == "COPY":
            self.copy(*rest.split())
        elif instruction == "CMD":
            self.command = json.loads(self.below(rest))
        elif instruction == "HEALTHCHECK":
            self.health = json.loads(self.below(rest.partition("CMD ")[2]))
        elif instruction not in ("FROM", "ARG", "USER", "EXPOSE"):
            sys.exit(f"{instruction} is not known here; expected an instruction that release/try_image.py carries out")

    def run(self, line: str) -> None:
        """A shell's line; a new environment gets this one's torch before pip is asked for it."""
        if line.startswith("useradd"):
            print(f"left out: {line}")
            return
        subprocess.run(["sh", "-c", self.below(line)], check=True, stdout=subprocess.DEVNULL)
        if made := re.fullmatch(r"python -m venv (\S+)", line):
            torch_alone.link(Path(self.below(made[1])))

    def copy(self, *arguments: str) -> None:
        """Files of the checkout; those of the other stage are there already."""
        if arguments[0].startswith("--from="):
            return
        *sources, target = arguments
        place = Path(self.below(target))
        (place if target.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        for source in sources:
            source = re.sub(r"\$\{(\w+)\}", lambda name: self.arguments[name[1]], source)
            found = sorted(ROOT.glob(source))
            if not found:
                sys.exit(f"{source} is not there; expected a file of this checkout, which an engine could copy")
            for path in found:
                shutil.copy(path, place)

    def below(self, line: str) -> str:
        """The line with this trial's folders in the place of the image's."""
        return FOLDERS.sub(f"{self.root}/", line)


def main(model: str) -> None:
    """Follow the Dockerfile, then use what it made."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    with tempfile.TemporaryDirectory(prefix="try-image-") as name:
        steps = Steps(Path(name), model)
        for line in lines:
            if line and not line.startswith("#"):
                print(line)
                steps.take(*line.split(maxsplit=1))
        # Nothing of this environment but the path of programs, as in a container.
        with subprocess.Popen(steps.command, cwd=name, env={"PATH": os.environ["PATH"]}) as worker:
            try:
                wait_until_healthy(steps.health, worker)
                print("healthy")
                with socket.create_connection(("127.0.0.1", 8000), 10) as client:
                    client.sendall(b'{"id": 1, "text": "a short text"}\n')
                    answer = json.loads(client.makefile().readline())
                print("answered:", {name: len(rows[0]) for name, rows in answer["outputs"].items()})
            finally:
                worker.send_signal(signal.SIGTERM)
        if worker.returncode != 0:
            sys.exit(f"the worker ended with {worker.returncode}; expected 0 at SIGTERM")
    print("every step that needs no engine was tried")


def wait_until_healthy(command: list[str], worker: subprocess.Popen[bytes]) -> None:
    """Ask twice a second, until START_S have passed or the worker has ended."""
    end = time.monotonic() + START_S
    while subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0:
        if time.monotonic() > end or worker.poll() is not None:
            sys.exit(f"not healthy after {START_S} s, or ended before")
        time.sleep(0.5)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
