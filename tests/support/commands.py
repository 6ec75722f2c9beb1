"""Parse the commands that start this project's Python processes, so that a fork can do the same (`forkserver.py`).

The result is None if a fork would not behave like the fresh process.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = ("export-model", "run-model")


@dataclass(frozen=True)
class Command:
    """Either a `script` of the environment, or the `settings` of the `launcher` (exporter/verification/launcher.py)."""

    arguments: list[str]
    script: str = ""
    launcher: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    warnings_are_errors: bool = False

    @property
    def exports(self) -> bool:
        """Whether it will import transformers."""
        if self.script:
            return Path(self.script).name == "export-model"
        return re.search(r"\b(from|import) (exporter|transformers)\b", self.settings["code"]) is not None


def parse(command: Sequence[str]) -> Command | None:
    """The parts of a command that runs in this interpreter with no flags but those that a fork can take over."""
    # clean start: compares with what was started
    head, *rest = command
    if Path(head) in [Path(sys.executable).with_name(name) for name in SCRIPTS]:
        return Command(rest, script=head)
    launcher = next(
        (place for place, part in enumerate(rest) if part.endswith("/exporter/verification/launcher.py")), None
    )
    if head != sys.executable or launcher is None:
        return None
    isolated, flags = rest[:3], rest[3:launcher]
    if isolated != ["-I", "-X", f"utf8={sys.flags.utf8_mode}"] or flags not in ([], ["-W", "error"]):
        return None
    settings = json.loads(rest[launcher + 1])
    return Command(rest[launcher + 2 :], "", rest[launcher], settings, bool(flags))
