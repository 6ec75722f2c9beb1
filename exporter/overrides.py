"""What cannot be derived and holds for single architectures: pure data, each entry with its reason.

In: a Source and a name. Out: what the table says of it, or None. Refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.source import Source
from runtime.manifest import ValueRange

# Images of models that say nothing of their size: what the field trains image models on.
DEFAULT_IMAGE = 224


@dataclass(frozen=True)
class Override:
    """What one model type needs beyond the rules.

    `layouts` gives a parameter's axes, `sizes` the fixed size of an axis, `multiples` its step, `values` the integers a
    parameter holds, `floats` the parameters that hold numbers instead, `unwanted` those left at their default, with
    the reason as it is shown.
    """

    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)
    multiples: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)
    values: Mapping[str, Callable[[Any], tuple[int, int]]] = field(default_factory=dict)
    floats: tuple[str, ...] = ()
    unwanted: Mapping[str, str] = field(default_factory=dict)


OVERRIDES: dict[str, Override] = {
    # Characters instead of tokens: any code point is an id, hashed into the model's buckets.
    "canine": Override(values={"input_ids": lambda _config: (0, 0x10FFFF)}),
    # A spectrogram of fixed length, called input_values.
    "audio-spectrogram-transformer": Override(
        layouts={"input_values": ("batch", "frames", "features")},
        sizes={"frames": lambda config: config.max_length, "features": lambda config: config.num_mel_bins},
        unwanted={"attention_mask": "a spectrogram has no padded rows"},
    ),
    # The encoder's positions are as many as half of the frames, and it takes no other number.
    "whisper": Override(
        layouts={"input_features": ("batch", "features", "frames")},
        sizes={
            "features": lambda config: config.num_mel_bins,
            "frames": lambda config: 2 * config.max_source_positions,
        },
    ),
    "wav2vec2-bert": Override(sizes={"features": lambda config: config.feature_projection_input_dim}),
    # Its boxes are relative to the page, from 0 to 1.
    "bros": Override(floats=("bbox",)),
    # Seven kinds of token types a token, each with its own number of values: the smallest has two.
    "tapas": Override(
        layouts={"token_type_ids": ("batch", "sequence", "type_kinds")},
        sizes={"type_kinds": lambda config: len(config.type_vocab_sizes)},
        values={"token_type_ids": lambda config: (0, min(config.type_vocab_sizes) - 1)},
    ),
}


def _override(source: Source) -> Override:
    return OVERRIDES.get(source.info.type, Override())


def layout(source: Source, name: str) -> tuple[str, ...] | None:
    """The axes of a parameter, where they are not the usual ones."""
    return _override(source).layouts.get(name)


def unwanted(source: Source, name: str) -> str | None:
    """Why a parameter is left out."""
    return _override(source).unwanted.get(name)


def values(source: Source, name: str) -> ValueRange | None:
    """The integers that a parameter may hold."""
    found = _override(source).values.get(name)
    return ValueRange(*found(source.config)) if found is not None else None


def is_float(source: Source, name: str) -> bool:
    """Whether a parameter that usually holds integers holds numbers here."""
    return name in _override(source).floats


def multiple(source: Source, name: str) -> int:
    """The step of an axis."""
    found = _override(source).multiples.get(name)
    return found(source.config) if found is not None else 1


def fixed_size(source: Source, name: str) -> int | None:
    """The only size of an axis, or None where it varies."""
    found = _override(source).sizes.get(name)
    if found is not None:
        return found(source.config)
    vision = getattr(source.config, "vision_config", source.config)
    fixed = {
        "channels": int(getattr(vision, "num_channels", 3) or 3),
        "coordinates": 4,
        "features": int(getattr(source.config, "num_mel_bins", 80) or 80),
    }
    if name == "patches":
        side = getattr(vision, "patch_size", 16)
        height, width = image_size(source)
        return (height // int(side)) * (width // int(side))
    return fixed.get(name)


def image_size(source: Source) -> tuple[int, int]:
    """Height and width: the configuration's, else those that the image processor makes, else the usual ones."""
    config = source.config
    for holder in (config, getattr(config, "vision_config", None), getattr(config, "backbone_config", None)):
        size = getattr(holder, "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return int(size[0]), int(size[1])
    for key in ("crop_size", "size"):
        size = source.preprocessor.get(key)
        if isinstance(size, int):
            return size, size
        if isinstance(size, dict) and {"height", "width"} <= set(size):
            return int(size["height"]), int(size["width"])
        if isinstance(size, dict) and "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    return DEFAULT_IMAGE, DEFAULT_IMAGE
