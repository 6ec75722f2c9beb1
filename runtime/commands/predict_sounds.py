"""`run-model predict --audio`: the result of each wav file, one JSON object per line, in the order of the options."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from runtime.commands.predict_media import Media
from runtime.format.manifest import Manifest

_SOUNDS = Media(
    "audio",
    "sound",
    {"top_k": "audio-classification", "timestamps": "automatic-speech-recognition"},
    everywhere=("truncate",),
)


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

    arguments = _SOUNDS.arguments(options, manifest.task)
    method = getattr(load(options.file, **loading).audio, METHODS.get(manifest.task, "numbers"))

    def answer(path: str) -> dict[str, Any]:
        samples, rate = read_wave(path)
        return _fields(method(samples, rate, **arguments))

    _SOUNDS.print_lines(options.audio, answer)
    return 0


def _fields(result: Any) -> dict[str, Any]:
    if isinstance(result, str):
        return {"text": result}
    if isinstance(result, dict):
        return {name: tensor.tolist() for name, tensor in result.items()}
    return dataclasses.asdict(result)
