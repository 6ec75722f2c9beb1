"""A GGUF file as the model: transformers' own reader makes configuration, weights in fp32 and tokenizer from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from runtime.errors import CheckpointError, ExtraMissingError, ModelNotFoundError

_MAGIC = b"GGUF"


def gguf_name(folder: Path, named: str) -> str:
    """The file's name in the model's folder. `named` is that name, or a path to the file.

    Raises:
        ModelNotFoundError: there is no such file in the folder.
        CheckpointError: it is not GGUF.
        ExtraMissingError: the package that transformers reads it with is not installed.
    """
    path = next((path for path in (folder / named, Path(named)) if path.is_file()), None)
    if path is None or path.resolve().parent != folder.resolve():
        raise ModelNotFoundError(
            f"there is no file {named} in {folder}", "a GGUF file in the model's folder", "check the path"
        )
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise CheckpointError(f"{path} is not GGUF", "a file that begins with GGUF", "check the path")
    if importlib.util.find_spec("gguf") is None:
        raise ExtraMissingError(
            f"{path.name} is read with the package gguf, which is not installed",
            "gguf",
            "pip install 'export-model[gguf]'",
        )
    return path.name
