"""`run-model predict --audio`: the result of each wav file, one JSON object per line.

A file that cannot be read, or whose sound is refused, gets its error in its line; the other files are computed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from runtime.audio import read_wave
from runtime.audio.api import METHODS, Audio
from runtime.errors import ArtifactFailedError, ExtraMissingError, InputError, InputFileError


def print_sounds(audio: Audio, task: str, paths: Sequence[str], arguments: dict[str, Any]) -> int:
    """Print one line per file.

    Args:
        audio: of the session.
        task: the artifact's.
        paths: of wav files.
        arguments: of the task's method.

    Raises:
        InputFileError: at the end, if a file failed.
        InputTaskError: the method lacks something that the artifact does not have.
    """
    method = getattr(audio, METHODS.get(task, "numbers"))
    failed, first = 0, ""
    for path in paths:
        row: dict[str, Any] = {"audio": path}
        try:
            samples, rate = read_wave(path)
            row |= _fields(method(samples, rate, **arguments))
        except (InputError, ArtifactFailedError, ExtraMissingError) as error:
            failed += 1
            row["error"] = str(error)
            first = first or f"{path}: {error}"
        print(json.dumps(row))
        sys.stdout.flush()
    if failed:
        raise InputFileError(f"{failed} of {len(paths)} sounds failed; {first}")
    return 0


def _fields(result: Any) -> dict[str, Any]:
    if isinstance(result, str):
        return {"text": result}
    if isinstance(result, dict):
        return {name: tensor.tolist() for name, tensor in result.items()}
    return dataclasses.asdict(result)
