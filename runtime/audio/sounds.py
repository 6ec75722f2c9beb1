"""What the caller passes as a sound: checked, and brought to float32, one channel, the model's rate and length.

Integers of 16 or 32 bits are PCM: they are divided by the largest one. Two channels are averaged if they come first,
as in transformers' pipeline for speech recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.audio.resampling import resample
from runtime.errors import InputRankError, InputSizeError, InputTypeError, InputValueError
from runtime.printing import shown

RATES = (1_000, 1_000_000)
# Samples go from -1 to 1, and resampling can go beyond that by some percent. Whole numbers of 16 bits that were made
# floats without a division go much further, and what a model makes of them is wrong.
LOUDEST = 100.0
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_PCM = {torch.int16: 2.0**15, torch.int32: 2.0**31}
_EXPECTED = "float32 samples from -1 to 1, or int16, in an array or tensor [samples]"


@dataclass(frozen=True)
class SoundLimits:
    """What a model takes: the rate in Hz, and the least and most samples."""

    rate: int
    shortest: int
    longest: int | None

    def seconds(self) -> str:
        """For people: `0.25 to 30.00 s`."""
        # Rounded upwards: what is said to be long enough must be so.
        least = -(-100 * self.shortest // self.rate) / 100
        if self.longest is None:
            return f"at least {least:.2f} s"
        return f"{least:.2f} to {100 * self.longest // self.rate / 100:.2f} s"


def check_rate(rate: Any) -> int:
    """The rate as an int.

    Raises:
        InputValueError: it is none.
    """
    whole = isinstance(rate, int) and not isinstance(rate, bool)
    if isinstance(rate, float) and rate.is_integer():
        rate, whole = int(rate), True
    if not whole or not RATES[0] <= rate <= RATES[1]:
        raise InputValueError(f"rate is {shown(rate)}", f"samples per second, from {RATES[0]} to {RATES[1]}")
    return int(rate)


def several(value: Any) -> list[Any] | None:
    """The sounds of a list; None if it is one sound: an array, a tensor, or a list of numbers."""
    if not isinstance(value, (list, tuple)):
        return None
    if value and all(isinstance(one, (int, float)) for one in value[:2]):
        return None
    return list(value)


def prepare(value: Any, rate: int, limits: SoundLimits, truncate: bool, name: str) -> torch.Tensor:
    """A sound that the model takes: float32 [samples] at its rate.

    Args:
        value: what the caller passed.
        rate: of its samples.
        limits: of the model.
        truncate: cut what is too long.
        name: what errors call it.

    Raises:
        InputTypeError, InputRankError, InputSizeError, InputValueError: it does not fit.
        ExtraMissingError: it has another rate, and soxr is not installed.
    """
    samples = _one_channel(_floats(value, name), name)
    if samples.numel() == 0:
        raise InputSizeError(f"{name} is empty", limits.seconds())
    low, high = (float(bound) for bound in samples.aminmax())
    # Sums and extremes of numbers that are not finite are not finite.
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise InputValueError(f"{name} holds values that are not finite (NaN or infinite)", "finite samples")
    if low == high:
        raise InputValueError(f"{name} is silent: all {samples.numel()} samples are {low:g}", "a sound")
    if max(-low, high) > LOUDEST:
        largest = max(-low, high)
        raise InputValueError(f"{name} holds {largest:g}", "samples from -1 to 1", "divide 16-bit samples by 32768")
    # Before resampling, which takes time: how many samples there will be.
    count = samples.numel() * limits.rate // rate
    if limits.longest is not None and count > limits.longest:
        if not truncate:
            raise InputSizeError(
                f"{name} lasts {-(-100 * samples.numel() // rate) / 100:.2f} s",
                limits.seconds(),
                "divide it, or ask for truncation (truncate=True, --truncate)",
            )
        # A second more, so that the end which is kept is resampled from what follows it.
        samples = samples[: -(-limits.longest * rate // limits.rate) + rate]
    if rate != limits.rate:
        samples = resample(samples, rate, limits.rate)
    samples = samples[: limits.longest]
    if samples.numel() < limits.shortest:
        seconds = 1000 * samples.numel() // limits.rate / 1000
        raise InputSizeError(f"{name} lasts {seconds:.3f} s", limits.seconds())
    return samples.contiguous()


def _floats(value: Any, name: str) -> torch.Tensor:
    tensor = _tensor(value, name).detach()
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise InputTypeError(f"{name} is a {tensor.layout} tensor on {tensor.device}", _EXPECTED, "pass .cpu()")
    if tensor.dtype in _PCM:
        return tensor.to(torch.float64).div(_PCM[tensor.dtype]).to(torch.float32)
    if tensor.dtype not in _FLOATS:
        raise InputTypeError(f"{name} has dtype {tensor.dtype}", _EXPECTED)
    return tensor.to(torch.float32)


def _tensor(value: Any, name: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    try:
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return torch.tensor(value, dtype=torch.float32)
        if hasattr(value, "__array_interface__") and hasattr(value, "astype"):
            # A copy: an array may be read-only, byte-swapped or reversed.
            return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C", copy=True))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputTypeError(f"{name} is not an array of numbers ({error})", _EXPECTED) from error
    raise InputTypeError(f"{name} is {shown(value)}", _EXPECTED)


def _one_channel(samples: torch.Tensor, name: str) -> torch.Tensor:
    if samples.dim() == 1:
        return samples
    if samples.dim() == 2 and samples.size(0) in (1, 2):
        return samples.mean(0)
    shape = list(samples.shape)
    channels_last = samples.dim() == 2 and shape[1] in (1, 2)
    remedy = "take the mean of the channels, samples.mean(1)" if channels_last else "make one channel of it"
    raise InputRankError(f"{name} has shape {shape}", "[samples], or [channels, samples] of 1 or 2 channels", remedy)
