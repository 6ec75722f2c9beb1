"""What `run-model predict --image` and `--audio` share: which options they have, and a line of JSON per file.

If a file fails, its line holds the error and the others are answered; at the end InputFileError says how many failed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import ArtifactFailedError, ExtraMissingError, InputError, InputFileError, InputTaskError

# Every option of `predict` that changes an answer; those of other kinds of inputs are refused.
_OPTIONS = (
    *("top_k", "timestamps", "threshold", "aggregation", "stride", "prompt_name", "dimensions", "truncate"),
    *("points", "box"),
)


@dataclass(frozen=True)
class Media:
    """Pictures or sounds.

    Attributes:
        key: the option of the command, and the field of a line that names the file.
        noun: for people.
        options: option → the task that has it.
        everywhere: options that all tasks have.
    """

    key: str
    noun: str
    options: Mapping[str, str]
    everywhere: Collection[str] = ()

    def arguments(self, options: argparse.Namespace, task: str) -> dict[str, Any]:
        """The arguments for the task's method from the options of the command.

        Raises:
            InputTaskError: an option that the task's method does not have.
        """
        given = {name: value for name in _OPTIONS if (value := getattr(options, name)) is not None}
        # Switches are false where they are left out.
        given = {name: value for name, value in given.items() if value is not False}
        for name in given:
            if name not in self.everywhere and self.options.get(name) != task:
                flag = f"--{name.replace('_', '-')}"
                wanted = f"{self.noun}s for {self.options[name]}" if name in self.options else "other inputs"
                raise InputTaskError(f"{flag} with {self.noun}s for {task}", wanted, f"leave {flag} out")
        return given

    def print_lines(self, paths: Sequence[str], answer: Callable[[str], Mapping[str, Any]]) -> None:
        """Print the fields that `answer` gives for each file, as soon as they are computed.

        Raises:
            InputFileError: files failed, which their lines say.
        """
        failed, first = 0, ""
        for path in paths:
            row: dict[str, Any] = {self.key: path}
            try:
                row |= answer(path)
            except (InputError, ArtifactFailedError, ExtraMissingError) as error:
                failed += 1
                row["error"] = str(error)
                first = first or f"{path}: {error}"
            print(json.dumps(row), flush=True)
        if failed:
            count = len(paths)
            raise InputFileError(f"{failed} of {count} {self.noun}{'s' * (count > 1)} failed; {first}")
