"""Read a wav file with the standard library: PCM of 8, 16, 24 or 32 bits, one channel or two."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import torch

from runtime.errors import InputFileError

# Beyond this a file takes more memory than any model's sound is worth: 3 hours at 48 kHz, 16 bits, two channels.
MAX_BYTES = 2**31
_EXPECTED = "a wav file of PCM with 8, 16, 24 or 32 bits and one channel or two"


def read_wave(path: str | os.PathLike[str]) -> tuple[torch.Tensor, int]:
    """The samples, float32 from -1 to 1, and their rate in Hz. Two channels are averaged.

    Raises:
        InputFileError: the file cannot be read, or is of another kind.
    """
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise InputFileError(f"{path} has {size} bytes", f"at most {MAX_BYTES}", "divide it")
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = bytearray(file.readframes(file.getnframes()))
    except (OSError, EOFError, ValueError, wave.Error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it ends early"
        raise InputFileError(f"cannot read {path}: {reason}", _EXPECTED) from error
    if channels not in (1, 2) or width not in (1, 2, 3, 4):
        raise InputFileError(f"{path} has {channels} channels of {8 * width} bits", _EXPECTED)
    whole = len(data) // (channels * width) * (channels * width)
    if whole == 0:
        raise InputFileError(f"{path} holds no samples", _EXPECTED)
    samples = _samples(data[:whole], width).reshape(-1, channels)
    return (samples if channels == 1 else samples.mean(1, keepdim=True)).to(torch.float32).squeeze(1), rate


def _samples(data: bytearray, width: int) -> torch.Tensor:
    """float64 from -1 to 1."""
    if width == 1:
        return torch.frombuffer(data, dtype=torch.uint8).to(torch.float64).sub(128.0).div(128.0)
    if width == 3:
        parts = torch.frombuffer(data, dtype=torch.uint8).reshape(-1, 3).to(torch.int32)
        # In the upper three bytes, so that the sign is right.
        return ((parts[:, 0] << 8) | (parts[:, 1] << 16) | (parts[:, 2] << 24)).to(torch.float64).div(2.0**31)
    kind = torch.int16 if width == 2 else torch.int32
    return torch.frombuffer(data, dtype=kind).to(torch.float64).div(2.0 ** (8 * width - 1))
