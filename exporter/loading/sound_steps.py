"""Which function of `sound_features` computes what a folder's feature extractor does, and with which constants.

The constants are read from the extractor itself: its windows, its filter bank, its numbers. What was chosen is compared
with the extractor on seeded sounds. An extractor of another kind, or one that gives other numbers, is not replaced: the
file then takes the model's inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.loading.feature_extractor import FeatureExtractor
from exporter.loading.sound_settings import SoundSettings
from exporter.preprocessing import sound_features
from exporter.preprocessing.preprocessor import GIVEN, Constant, PreprocessingPlan, Preprocessor
from runtime.errors import ExportError
from runtime.format.golden import Case
from runtime.format.manifest import Axis, Preprocessing, TensorSpec

# Largest difference from the extractor's own numbers, relative to the largest of them. Measured: 3e-6, and 0 where the
# extractor computes with torch. NumPy's sums of equal numbers in float32 leave a rest that a division by a variance of
# 0 enlarges: with silence the difference is 3e-3, and the numbers stand for nothing.
TOLERANCE, TOLERANCE_OF_SILENCE = 1e-4, 1e-2
# The longest sound that is compared; and where the model sets no limit.
_LONGEST_SECONDS, _USUAL_SECONDS = 120, 30


class UnknownSettingError(ExportError):
    """A feature extractor, or a setting of one, that no function here computes."""


@dataclass(frozen=True)
class SoundSteps:
    """`function`, called with a sound and `constants`, gives the inputs `names` for one row.

    `rows` is the number of frames that a number of samples gives; None if inputs are as long as the sound. With
    `limits`, the least and the most samples of a sound, inputs have one size whatever the sound's.
    """

    function: Callable[..., Any]
    constants: tuple[Constant, ...]
    names: tuple[str, ...]
    rows: Callable[[int], int] | None = None
    limits: tuple[int, int] | None = None

    def __call__(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs by name."""
        return dict(zip(self.names, self.function(samples, *self.constants), strict=True))

    def bounds(self, inputs: Sequence[TensorSpec]) -> tuple[int, int | None]:
        """The least and the most samples that make inputs of sizes that the model takes."""
        if self.limits is not None:
            return self.limits
        name = "samples" if self.rows is None else "frames"
        axis = next(axis for spec in inputs for axis in spec.axes if axis.name == name)
        if self.rows is None:
            return axis.minimum, axis.maximum
        shortest = _first(lambda samples: self.rows(samples) >= axis.minimum)  # type: ignore[misc]
        if axis.maximum is None:
            return shortest, None
        most = axis.maximum
        return shortest, _first(lambda samples: self.rows(samples) > most) - 1  # type: ignore[misc]


def _first(fits: Callable[[int], bool]) -> int:
    """The least number from 1 that fits; all larger ones do."""
    high = 1
    while not fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def plan_sounds(settings: SoundSettings, inputs: Sequence[TensorSpec]) -> PreprocessingPlan:
    """How a file can make the model's inputs of sounds, or why it cannot.

    Args:
        settings: the folder's.
        inputs: the exported model's.
    """
    without = "no preprocessing of sounds in the file: "
    if settings.extractor is None:
        return PreprocessingPlan(notes=(without + settings.reason,))
    try:
        steps, cases = find_steps(settings.extractor, inputs)
    except UnknownSettingError as error:
        return PreprocessingPlan(notes=(without + str(error),))
    rate = settings.extractor.rate

    def fitted(inputs: Sequence[TensorSpec]) -> Preprocessing | None:
        shortest, longest = steps.bounds(inputs)
        if longest is not None and longest < shortest:
            return None
        return Preprocessing("audio", (Axis("samples", shortest, longest),), steps.names, rate)

    info = fitted(inputs)
    if info is None:
        return PreprocessingPlan(notes=(without + "no sound makes inputs of a size that the model takes",))
    preprocessor = Preprocessor(steps.function, steps.constants, info, fitted)
    note = f"sounds at {rate} Hz are preprocessed in the file, as {settings.extractor.kind} does with {len(cases)}"
    return PreprocessingPlan(preprocessor, (note,), cases, TOLERANCE * max(_largest(case) for case in cases))


def _largest(case: Case) -> float:
    return max(1.0, *(float(tensor.double().abs().max()) for tensor in case.outputs.values()))


def find_steps(extractor: FeatureExtractor, inputs: Sequence[TensorSpec]) -> tuple[SoundSteps, tuple[Case, ...]]:
    """The steps that give what the extractor does; and sounds, with what the extractor makes of them.

    Args:
        extractor: the folder's.
        inputs: the exported model's.

    Raises:
        UnknownSettingError: none do; the message says why.
    """
    maker = _MAKERS.get(extractor.kind or "")
    if maker is None:
        raise UnknownSettingError(
            f"the feature extractor {type(extractor.own).__name__} is not known", ", ".join(sorted(_MAKERS))
        )
    if extractor.rate is None or not 1000 <= extractor.rate <= 1_000_000:
        raise UnknownSettingError(f"its sampling_rate is {extractor.rate!r}", "from 1000 to 1000000 Hz")
    steps = maker(extractor)
    names = [spec.name for spec in inputs]
    missing = [spec.name for spec in inputs if spec.fill is None and spec.name not in steps.names]
    unknown = [name for name in steps.names if name not in names]
    if missing or unknown:
        raise UnknownSettingError(
            f"the feature extractor makes {', '.join(steps.names)}", f"what the model takes: {', '.join(names)}"
        )
    return steps, tuple(_compared(extractor, steps, inputs))


def probe_sounds(shortest: int, longest: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Seeded sounds that show differences: noise of several lengths, a tone that ends, a very quiet one, silence."""
    generator = torch.Generator().manual_seed(11)
    middle = min(longest, max(shortest, 16_123))
    yield "short", torch.rand(shortest, generator=generator) - 0.5
    yield "noise", torch.randn(middle, generator=generator) * 0.1
    tone = torch.sin(torch.arange(middle) * 0.17) * 0.5
    tone[middle // 2 :] = 0.0
    yield "tone", tone
    yield "quiet", torch.randn(middle, generator=generator) * 1e-4
    yield "odd", torch.randn(min(longest, middle + 171), generator=generator)
    yield "longest", torch.randn(longest, generator=generator) * 0.1
    yield "silence", torch.zeros(middle)


def _compared(extractor: FeatureExtractor, steps: SoundSteps, inputs: Sequence[TensorSpec]) -> Iterator[Case]:
    """Sounds with the extractor's own inputs, after both were compared.

    Raises:
        UnknownSettingError: they differ.
    """
    shortest, longest = steps.bounds(inputs)
    rate = extractor.rate or 0
    longest = max(shortest, min(longest or _USUAL_SECONDS * rate, _LONGEST_SECONDS * rate))
    for name, samples in probe_sounds(shortest, longest):
        try:
            own = extractor(samples, "attention_mask" in steps.names)
            made = steps(samples)
        # The extractor is others' code, and its settings may be anything.
        except Exception as error:  # noqa: BLE001
            raise UnknownSettingError(
                f"the feature extractor fails on a sound ({name}): {' '.join(str(error).split())[:150]}"
            ) from error
        apart = max(_difference(name, key, tensor, own.get(key), inputs) for key, tensor in made.items())
        if name != "silence" or apart <= TOLERANCE:
            yield Case(name, {GIVEN: samples}, {key: own[key].to(tensor.dtype) for key, tensor in made.items()})


def _difference(
    name: str, key: str, tensor: torch.Tensor, expected: torch.Tensor | None, inputs: Sequence[TensorSpec]
) -> float:
    """The largest difference of an input of the sound `name`."""
    _check_size(key, tensor, inputs)
    if expected is None or expected.shape != tensor.shape:
        shape = None if expected is None else list(expected.shape)
        raise UnknownSettingError(
            f"the feature extractor makes {key} of shape {shape} ({name})", f"{list(tensor.shape)}"
        )
    allowed = TOLERANCE_OF_SILENCE if name == "silence" else TOLERANCE
    apart = float((expected.double() - tensor.double()).abs().max())
    if not apart <= allowed * max(1.0, float(expected.double().abs().max())):
        raise UnknownSettingError(
            f"the feature extractor gives other numbers than its usual steps: {key} differs by {apart:.1e} ({name})",
            "settings that the exporter knows",
        )
    return apart


def _check_size(name: str, tensor: torch.Tensor, inputs: Sequence[TensorSpec]) -> None:
    """Refuse what the model does not take."""
    axes = next(spec.axes for spec in inputs if spec.name == name)
    if tensor.dim() == len(axes) and all(
        axis.minimum <= size and (axis.maximum is None or size <= axis.maximum)
        for axis, size in zip(axes, tensor.shape, strict=True)
    ):
        return
    taken = ", ".join(f"{axis.name} {axis.minimum} to {axis.maximum}" for axis in axes)
    raise UnknownSettingError(f"the feature extractor makes {name} of shape {list(tensor.shape)}", taken)


def _number(own: Any, name: str, least: int = 1) -> int:
    value = getattr(own, name, None)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 2**24:
        raise UnknownSettingError(f"the feature extractor has {name} {value!r}"[:120], f"a whole number from {least}")
    return value


def _expect(own: Any, **wanted: Any) -> None:
    for name, value in wanted.items():
        found = getattr(own, name, value)
        if found != value:
            raise UnknownSettingError(f"the feature extractor has {name} {found!r}"[:120], repr(value))


def _filters(extractor: FeatureExtractor, dtype: torch.dtype, transposed: bool) -> torch.Tensor:
    found = extractor.mel_filters().to(dtype)
    return (found.t() if transposed else found).contiguous()


def _wave(extractor: FeatureExtractor) -> SoundSteps:
    own = extractor.own
    _expect(own, feature_size=1)
    return SoundSteps(sound_features.wave, (bool(own.do_normalize),), ("input_values",))


def _kaldi_frames(samples: int) -> int:
    return 1 + (samples - 400) // 160


def _spectrogram(extractor: FeatureExtractor) -> SoundSteps:
    own = extractor.own
    length = _number(own, "max_length")
    # Subtracting 0 and dividing by 1 changes nothing.
    mean, deviation = (float(own.mean), 2 * float(own.std)) if own.do_normalize else (0.0, 1.0)
    window = torch.hann_window(400, periodic=False, dtype=torch.float64)
    constants = (length, mean, deviation, window, _filters(extractor, torch.float64, False))
    limits = (400, 400 + (length - 1) * 160 + 159)
    return SoundSteps(sound_features.fixed_kaldi_mel, constants, ("input_values",), limits=limits)


def _seamless(extractor: FeatureExtractor) -> SoundSteps:
    own = extractor.own
    _expect(own, stride=2, padding_side="right")
    window = torch.as_tensor(own.window).to(torch.float64)
    constants = (float(own.padding_value), window, _filters(extractor, torch.float64, False))
    names = ("input_features", "attention_mask")
    return SoundSteps(
        sound_features.stacked_kaldi_mel, constants, names, lambda samples: (_kaldi_frames(samples) + 1) // 2
    )


def _whisper(extractor: FeatureExtractor) -> SoundSteps:
    own = extractor.own
    _expect(own, dither=0.0)
    length, bins, hop = (_number(own, name) for name in ("n_samples", "n_fft", "hop_length"))
    window = torch.hann_window(bins)
    constants = (length, float(own.padding_value), hop, window, _filters(extractor, torch.float32, True))
    return SoundSteps(sound_features.fixed_log_mel, constants, ("input_features",), limits=(1, length))


def _parakeet(extractor: FeatureExtractor) -> SoundSteps:
    own = extractor.own
    bins, length, hop = (_number(own, name) for name in ("n_fft", "win_length", "hop_length"))
    if bins % 2 or length > bins:
        raise UnknownSettingError(
            f"the feature extractor has n_fft {bins} and win_length {length}", "an even n_fft, as long as win_length"
        )
    before = (bins - length) // 2
    window = torch.zeros(bins)
    window[before : before + length] = torch.hann_window(length, periodic=False)
    constants = (float(own.preemphasis or 0.0), hop, window, _filters(extractor, torch.float32, False))
    names = ("input_features", "attention_mask")
    return SoundSteps(sound_features.normalised_log_mel, constants, names, lambda samples: 1 + samples // hop)


def _lasr(extractor: FeatureExtractor) -> SoundSteps:
    own = extractor.own
    bins, length, hop = (_number(own, name) for name in ("n_fft", "win_length", "hop_length"))
    window = torch.hann_window(length, periodic=False, dtype=torch.float64)
    constants = (hop, bins, window, _filters(extractor, torch.float64, False))
    names = ("input_features", "attention_mask")
    return SoundSteps(sound_features.log_mel, constants, names, lambda samples: 1 + (samples - length) // hop)


# Class of transformers → the steps with its settings.
_MAKERS: dict[str, Callable[[FeatureExtractor], SoundSteps]] = {
    "Wav2Vec2FeatureExtractor": _wave,
    "ASTFeatureExtractor": _spectrogram,
    "SeamlessM4TFeatureExtractor": _seamless,
    "WhisperFeatureExtractor": _whisper,
    "ParakeetFeatureExtractor": _parakeet,
    "LasrFeatureExtractor": _lasr,
}
