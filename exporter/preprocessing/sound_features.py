"""From the samples of a sound to a model's inputs, as feature extractors compute them: compiled to TorchScript.

Each function makes one row. It computes in the precision in which the authors' code does: where that is NumPy's, in
float64. What they use in common, windows and filter banks, comes in as tensors.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035

import torch

# TorchScript's parser knows no `tuple[…]`.
One = Tuple[torch.Tensor]  # noqa: UP006
Two = Tuple[torch.Tensor, torch.Tensor]  # noqa: UP006


def wave(samples: torch.Tensor, normalize: bool) -> Tuple[torch.Tensor]:  # noqa: UP006
    """The samples themselves, or shifted and scaled to mean 0 and variance 1 (Wav2Vec2)."""
    made = samples
    if normalize:
        exact = samples.to(torch.float64)
        centred = exact - exact.mean()
        made = (centred / centred.square().mean().add(1e-7).sqrt()).to(torch.float32)
    return (made.unsqueeze(0),)


def kaldi_mel(
    samples: torch.Tensor, scale: float, hop: int, bins: int, window: torch.Tensor, filters: torch.Tensor
) -> torch.Tensor:
    """Logarithms of mel energies as Kaldi computes them: [frames, filters], without an incomplete last frame.

    Args:
        samples: at the model's rate.
        scale: what they are multiplied with first.
        hop: samples from one frame to the next.
        bins: the length of the Fourier transform.
        window: as long as a frame, float64.
        filters: [frequencies, filters] of float64.
    """
    frames = samples.mul(scale).to(torch.float64).unfold(0, window.size(0), hop)
    frames = frames - frames.mean(1, True)
    before = torch.cat([frames.narrow(1, 0, 1), frames.narrow(1, 0, frames.size(1) - 1)], 1)
    spectrum = torch.fft.rfft((frames - before * 0.97) * window, bins)
    energies = torch.matmul(spectrum.abs().square(), filters)
    return energies.clamp(min=1.192092955078125e-07).log().to(torch.float32)


def fixed_kaldi_mel(
    samples: torch.Tensor,
    length: int,
    mean: float,
    deviation: float,
    window: torch.Tensor,
    filters: torch.Tensor,
) -> Tuple[torch.Tensor]:  # noqa: UP006
    """Kaldi's mel energies, cut or filled with zeros to a number of frames, then normalised with constants (AST)."""
    frames = kaldi_mel(samples, 1.0, 160, 512, window, filters)
    frames = frames.narrow(0, 0, min(length, frames.size(0)))
    filled = torch.cat([frames, torch.zeros([length - frames.size(0), frames.size(1)])], 0)
    return (filled.sub(mean).div(deviation).unsqueeze(0),)


def stacked_kaldi_mel(
    samples: torch.Tensor, padding: float, window: torch.Tensor, filters: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: UP006
    """Kaldi's mel energies, each normalised over the sound, two frames side by side (SeamlessM4T).

    An odd frame at the end gets one of `padding` beside it, and the mask hides both.
    """
    frames = kaldi_mel(samples, 32768.0, 160, 512, window, filters).to(torch.float64)
    centred = frames - frames.mean(0)
    variance = centred.square().sum(0) / (frames.size(0) - 1)
    features = (centred / variance.add(1e-7).sqrt()).to(torch.float32)
    # One frame more: unfolding leaves it out if it has no second beside it.
    filled = torch.cat([features, torch.full([1, features.size(1)], padding)], 0)
    real = torch.cat([torch.ones([features.size(0)]), torch.zeros([1])])
    pairs = filled.unfold(0, 2, 2).transpose(1, 2)
    mask = real.unfold(0, 2, 2).select(1, 1).to(torch.int64)
    return (pairs.reshape([pairs.size(0), 2 * features.size(1)]).unsqueeze(0), mask.unsqueeze(0))


def fixed_log_mel(
    samples: torch.Tensor, length: int, padding: float, hop: int, window: torch.Tensor, filters: torch.Tensor
) -> Tuple[torch.Tensor]:  # noqa: UP006
    """Logarithms of mel energies of a sound that is cut or filled to a number of samples (Whisper).

    Values more than 8 decades below the largest are raised to that level.
    """
    cut = samples.narrow(0, 0, min(length, samples.size(0)))
    filled = torch.cat([cut, torch.full([length - cut.size(0)], padding)])
    half = window.size(0) >> 1
    mirrored = torch.ops.aten.reflection_pad1d(filled.unsqueeze(0), [half, half]).squeeze(0)
    frames = mirrored.unfold(0, window.size(0), hop)
    # The authors leave out the last frame.
    frames = frames.narrow(0, 0, frames.size(0) - 1)
    energies = torch.matmul(filters, torch.fft.rfft(frames * window, window.size(0)).abs().square().t())
    decades = energies.clamp(min=1e-10).log10()
    return (torch.maximum(decades, decades.max() - 8.0).add(4.0).div(4.0).unsqueeze(0),)


def normalised_log_mel(
    samples: torch.Tensor, emphasis: float, hop: int, window: torch.Tensor, filters: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: UP006
    """Logarithms of mel energies, each normalised over the sound; the mask hides the last frame (Parakeet).

    `window` is as long as the Fourier transform, `filters` are [filters, frequencies].
    """
    sharpened = torch.cat([samples.narrow(0, 0, 1), samples[1:] - samples[:-1] * emphasis])
    half = window.size(0) >> 1
    edge = torch.zeros([half])
    frames = torch.cat([edge, sharpened, edge]).unfold(0, window.size(0), hop)
    spectrum = torch.view_as_real(torch.fft.rfft(frames * window, window.size(0)))
    energies = torch.matmul(filters, spectrum.square().sum(-1).sqrt().square().t())
    features = energies.add(5.9604644775390625e-08).log().t()
    count = features.size(0) - 1
    real = features.narrow(0, 0, count)
    mean = real.sum(0) / count
    deviation = ((real - mean).square().sum(0) / (count - 1)).sqrt()
    made = torch.cat([(real - mean) / (deviation + 1e-5), torch.zeros([1, features.size(1)])], 0)
    mask = torch.cat([torch.ones([count], dtype=torch.int64), torch.zeros([1], dtype=torch.int64)])
    return (made.unsqueeze(0), mask.unsqueeze(0))


def log_mel(
    samples: torch.Tensor, hop: int, bins: int, window: torch.Tensor, filters: torch.Tensor
) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: UP006
    """Logarithms of mel energies without normalisation (LASR); an incomplete last frame is left out."""
    frames = samples.to(torch.float64).unfold(0, window.size(0), hop)
    energies = torch.matmul(torch.fft.rfft(window * frames, bins).abs().square(), filters)
    features = energies.clamp(min=1e-5).log().to(torch.float32)
    return (features.unsqueeze(0), torch.ones([1, features.size(0)], dtype=torch.int64))
