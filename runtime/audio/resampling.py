"""Change a sound's rate. The only module that imports the package soxr."""

from __future__ import annotations

import torch

from runtime.errors import ExtraMissingError

# soxr's own default, and librosa's.
QUALITY = "HQ"


def resample(samples: torch.Tensor, rate: int, wanted: int) -> torch.Tensor:
    """The sound at another rate, by soxr.

    Args:
        samples: float32 [samples].
        rate: theirs, in Hz.
        wanted: another one.

    Raises:
        ExtraMissingError: soxr is not installed.
    """
    try:
        import soxr
    except ImportError:
        raise ExtraMissingError(
            f"the rate is {rate} Hz, and resampling needs the package soxr, which is not installed",
            f"{wanted} Hz",
            "install export-model[audio], or resample the sound yourself",
        ) from None
    made: torch.Tensor = torch.from_numpy(soxr.resample(samples.numpy(), rate, wanted, quality=QUALITY))
    return made
