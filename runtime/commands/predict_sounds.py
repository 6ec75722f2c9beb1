"""`run-model predict --audio`: the result of each wav file, one JSON object per line.

If a file cannot be read, or its sound is refused, its line holds the error and the others are answered; at the end
InputFileError says how many failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from runtime.errors import ArtifactFailedError, ExtraMissingError, InputError, InputFileError, InputTaskError
from runtime.format.manifest import Manifest

# Option → the task that has it; `truncate` is for all.
OPTIONS = {"top_k": "audio-classification", "timestamps": "automatic-speech-recognition"}


def predict_sounds(options: argparse.Namespace, manifest: Manifest, loading: dict[str, Any]) -> int:
    """Run the command.

    Args:
        options: the command's.
        manifest: the artifact's.
        loading: the arguments of `runtime.load`.

    Raises:
        InputTaskError: an option that the artifact's task does not have, or an artifact that takes no sounds.
        InputFileError: sounds failed, which their lines say.
    """
    from runtime.audio import read_wave
    from runtime.audio.api import METHODS
    from runtime.session import load

    arguments = _arguments(options, manifest.task)
    method = getattr(load(options.file, **loading).audio, METHODS.get(manifest.task, "numbers"))
    failed, first = 0, ""
    for path in options.audio:
        row: dict[str, Any] = {"audio": path}
        try:
            samples, rate = read_wave(path)
            row |= _fields(method(samples, rate, **arguments))
        except (InputError, ArtifactFailedError, ExtraMissingError) as error:
            failed += 1
            row["error"] = str(error)
            first = first or f"{path}: {error}"
        print(json.dumps(row), flush=True)
    if failed:
        count = len(options.audio)
        raise InputFileError(f"{failed} of {count} sound{'s' * (count > 1)} failed; {first}")
    return 0


def _arguments(options: argparse.Namespace, task: str) -> dict[str, Any]:
    names = ("top_k", "timestamps", "threshold", "aggregation", "stride", "prompt_name", "dimensions", "truncate")
    given = {name: getattr(options, name) for name in names if getattr(options, name) not in (None, False)}
    for name in given:
        if name != "truncate" and OPTIONS.get(name) != task:
            flag = f"--{name.replace('_', '-')}"
            wanted = f"sounds for {OPTIONS[name]}" if name in OPTIONS else "other inputs"
            raise InputTaskError(f"{flag} with sounds for {task}", wanted, f"leave {flag} out")
    return given


def _fields(result: Any) -> dict[str, Any]:
    if isinstance(result, str):
        return {"text": result}
    if isinstance(result, dict):
        return {name: tensor.tolist() for name, tensor in result.items()}
    return dataclasses.asdict(result)
