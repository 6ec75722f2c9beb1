"""Sounds to inputs: the functions that go into a file give the numbers of the folder's own feature extractor."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from exporter.loading.feature_extractor import FeatureExtractor
from exporter.loading.sound_steps import UnknownSettingError, find_steps, probe_sounds
from runtime.format.manifest import Axis, TensorSpec

_BATCH = Axis("batch", 1, None)
_MASK = TensorSpec("attention_mask", "int64", (_BATCH, Axis("frames", 64, 3001)), fill=1)


def _of_frames(features: int, mask: bool = True, longest: int = 3001) -> tuple[TensorSpec, ...]:
    axes = (_BATCH, Axis("frames", 64, longest), Axis("features", features, features))
    return (TensorSpec("input_features", "float32", axes), *((_MASK,) if mask else ()))


_WAVE = (TensorSpec("input_values", "float32", (_BATCH, Axis("samples", 4000, 480_000))),)
_WAVE_MASK = TensorSpec("attention_mask", "int64", (_BATCH, Axis("samples", 4000, 480_000)), fill=1)
_AST = (TensorSpec("input_values", "float32", (_BATCH, Axis("frames", 1024, 1024), Axis("features", 128, 128))),)
_WHISPER = (TensorSpec("input_features", "float32", (_BATCH, Axis("features", 80, 80), Axis("frames", 3000, 3000))),)

# Class and settings → the inputs of a model for it, and the largest difference that was measured, of numbers up to 7.
_KINDS: dict[str, tuple[str, dict[str, Any], tuple[TensorSpec, ...], float]] = {
    "wav2vec2": ("Wav2Vec2FeatureExtractor", {}, _WAVE, 1e-6),
    "wav2vec2-as-it-is": ("Wav2Vec2FeatureExtractor", {"do_normalize": False}, _WAVE, 0.0),
    "wav2vec2-mask": ("Wav2Vec2FeatureExtractor", {"return_attention_mask": True}, (*_WAVE, _WAVE_MASK), 1e-6),
    "wav2vec2-bert": ("SeamlessM4TFeatureExtractor", {"padding_value": 1}, _of_frames(160), 3e-5),
    "wav2vec2-bert-40": ("SeamlessM4TFeatureExtractor", {"num_mel_bins": 40, "feature_size": 40}, _of_frames(80), 3e-5),
    "spectrogram": ("ASTFeatureExtractor", {}, _AST, 1e-6),
    "spectrogram-plain": ("ASTFeatureExtractor", {"do_normalize": False}, _AST, 1e-5),
    "whisper": ("WhisperFeatureExtractor", {}, _WHISPER, 1e-6),
    "parakeet": ("ParakeetFeatureExtractor", {}, _of_frames(80), 1e-5),
    "parakeet-unsharpened": ("ParakeetFeatureExtractor", {"preemphasis": None}, _of_frames(80), 1e-5),
    "lasr": ("LasrFeatureExtractor", {}, _of_frames(128), 1e-6),
}


def extractor(name: str, **settings: Any) -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        return FeatureExtractor(getattr(transformers, name)(**settings), name)


@pytest.mark.parametrize("kind", _KINDS)
def test_the_numbers_are_the_extractors_own(kind: str) -> None:
    name, settings, inputs, allowed = _KINDS[kind]
    own = extractor(name, **settings)
    steps, cases = find_steps(own, inputs)
    assert len(cases) >= 6
    shortest, longest = steps.bounds(inputs)
    for label, samples in probe_sounds(shortest, longest or 480_000):
        expected = own(samples, "attention_mask" in steps.names)
        for key, made in steps(samples).items():
            assert made.dtype == (torch.int64 if key == "attention_mask" else torch.float32)
            assert made.shape == expected[key].shape, (label, key)
            difference = float((made.double() - expected[key].double()).abs().max())
            # Silence: NumPy's rest of a mean, divided by the root of a variance of 0.
            assert difference <= (1e-2 if label == "silence" else allowed), (label, key, difference)


@pytest.mark.parametrize("kind", _KINDS)
def test_the_bounds_are_those_of_the_inputs(kind: str) -> None:
    """One sample less, or more, makes inputs of a size that the model does not take, or is cut off."""
    name, settings, inputs, _ = _KINDS[kind]
    steps, _ = find_steps(extractor(name, **settings), inputs)
    shortest, longest = steps.bounds(inputs)
    assert longest is not None
    if steps.limits is not None:
        noise = torch.randn(longest + 1, generator=torch.Generator().manual_seed(1))
        whole, cut = steps(noise), steps(noise[:-1])
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
        assert not all(torch.equal(steps(noise[:-400])[key], cut[key]) for key in cut)
        return
    axis = next(axis for axis in inputs[0].axes if axis.name in ("samples", "frames"))

    def size(samples: int) -> int:
        return steps(torch.zeros(samples))[inputs[0].name].shape[1]

    assert size(shortest) == axis.minimum and size(shortest - 1) < axis.minimum
    assert axis.maximum is not None and size(longest) == axis.maximum < size(longest + 1)


def test_half_a_minute_fits_an_extractor_that_counts_a_frame_more() -> None:
    assert extractor("ParakeetFeatureExtractor").frames(30) == 3001
    assert extractor("SeamlessM4TFeatureExtractor").frames(30) == 1499
    assert extractor("Wav2Vec2FeatureExtractor").frames(30) is None


def _dithered() -> FeatureExtractor:
    return extractor("WhisperFeatureExtractor", dither=0.001)


def _louder() -> FeatureExtractor:
    """A class of the same name that does something else."""
    found = extractor("ParakeetFeatureExtractor")
    own = found.own
    original = own._torch_extract_fbank_features
    own._torch_extract_fbank_features = lambda waveform, device="cpu": original(waveform * 2 + 0.1, device)
    return found


@pytest.mark.parametrize(
    ("make", "inputs", "reason"),
    [
        (_dithered, _WHISPER, "dither 0.001"),
        (lambda: extractor("SeamlessM4TFeatureExtractor", stride=4), _of_frames(320), "stride 4"),
        (lambda: extractor("SeamlessM4TFeatureExtractor", padding_side="left"), _of_frames(160), "padding_side"),
        (lambda: extractor("ParakeetFeatureExtractor", win_length=600), _of_frames(80), "win_length 600"),
        (lambda: extractor("Wav2Vec2FeatureExtractor", feature_size=2), _WAVE, "feature_size 2"),
        (lambda: extractor("Wav2Vec2FeatureExtractor", sampling_rate=0), _WAVE, "sampling_rate is 0"),
        (lambda: extractor("ClapFeatureExtractor"), _WAVE, "ClapFeatureExtractor is not known"),
        (lambda: FeatureExtractor(extractor("Wav2Vec2FeatureExtractor").own, None), _WAVE, "is not known"),
        (lambda: extractor("Wav2Vec2FeatureExtractor"), _of_frames(80), "makes input_values; expected what the model"),
        (lambda: extractor("ASTFeatureExtractor", max_length=100), _AST, r"of shape \[1, 100, 128\]"),
        (lambda: extractor("ParakeetFeatureExtractor", feature_size=64), _of_frames(80), r"of shape \[1, 64, 64\]"),
        (_louder, _of_frames(80), "other numbers than its usual steps: input_features differs by"),
    ],
    ids=range(12),
)
def test_what_is_not_known_is_not_replaced(
    make: Callable[[], FeatureExtractor], inputs: tuple[TensorSpec, ...], reason: str
) -> None:
    with pytest.raises(UnknownSettingError, match=reason):
        find_steps(make(), inputs)
