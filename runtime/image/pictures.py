"""Turn what the caller gives into pixels. The only module that imports Pillow, and only for files and its pictures.

Pictures of files are turned upright as their EXIF data says, and get three channels, as transformers' pipelines do it.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import torch

from runtime.errors import ExtraMissingError, InputFileError, InputSizeError
from runtime.format.manifest import Preprocessing


def pixels(rules: Preprocessing, value: Any) -> Any:
    """Tensors and arrays as they are; files and Pillow's pictures as uint8 [height, width, 3].

    Args:
        rules: the artifact's, which say how large a picture may be: compared before a file is decoded.
        value: a path, a picture of Pillow, a tensor or an array.

    Raises:
        InputFileError: the file cannot be read.
        InputSizeError: it is too large.
        ExtraMissingError: Pillow is not installed.
    """
    if isinstance(value, (str, os.PathLike)):
        return _of_file(rules, os.fspath(value))
    # Whoever has such a picture has imported Pillow.
    pillow: Any = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(value, pillow.Image):
        return _of_picture(rules, value)
    return value


def _of_file(rules: Preprocessing, path: str) -> torch.Tensor:
    try:
        from PIL import Image
    except ImportError as error:
        raise ExtraMissingError(
            "reading pictures from files needs the package pillow", "", "install export-model[image]"
        ) from error
    try:
        with warnings.catch_warnings():
            # About many pixels, which are limited here, and about odd EXIF data.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                return _of_picture(rules, picture)
    # What Pillow's decoders raise for damaged files is of many kinds.
    except (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError, MemoryError) as error:
        raise InputFileError(f"cannot read {path}: {_first_line(error)}", "a picture that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise InputFileError(f"cannot read {path}: {_first_line(error)}", "a smaller picture") from error


def _of_picture(rules: Preprocessing, picture: Any) -> torch.Tensor:
    from PIL import ImageOps

    most = min(axis.maximum or max(picture.size) for axis in rules.axes[:2])
    if max(picture.size) > most:
        raise InputSizeError(f"the picture is {picture.size[1]}x{picture.size[0]}", f"sides of at most {most} pixels")
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    # A copy that can be written to, as torch asks.
    flat = torch.frombuffer(bytearray(upright.tobytes()), dtype=torch.uint8)
    return flat.reshape(upright.size[1], upright.size[0], 3)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
