"""What single architectures need and no rule can derive: pure data, each entry with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.config.forward_parameters import Group
from exporter.loading.image_sizes import Size
from exporter.loading.loader import Source
from runtime.format.manifest import ValueRange


@dataclass(frozen=True)
class Override:
    """What one model type needs beyond the rules. Functions take the configuration; those of `sizes` take the Source.

    Attributes:
        layouts: the axes of a parameter.
        sizes: the fixed size of an axis, or None.
        longest: the largest size of an axis, or None.
        least: the smallest size of an axis.
        multiples: the number of which the size of an axis must be a multiple.
        image: the side of the images.
        values: the smallest and largest integer of a parameter.
        floats: parameters with floating-point numbers where other models have integers.
        groups: the kinds of data that go in, whatever the task.
        output_aliases: the task's name of an output → the model's.
        unwanted: parameters to leave at their default, with the reason that is shown.
        refused: why no trace can be correct.
    """

    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: Mapping[str, Callable[[Any], int | None]] = field(default_factory=dict)
    longest: Mapping[str, Callable[[Any], int | None]] = field(default_factory=dict)
    least: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)
    multiples: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)
    image: Callable[[Any], int] | None = None
    values: Mapping[str, Callable[[Any], tuple[int, int]]] = field(default_factory=dict)
    floats: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    output_aliases: Mapping[str, str] = field(default_factory=dict)
    unwanted: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None


def _windowed_side(config: Any) -> int:
    return int(config.patch_size * 2 ** (len(config.depths) - 1) * config.window_size)


def _sam_side(source: Source) -> int:
    return int(source.config.vision_config.image_size)


def _naflex_patches(source: Source) -> int:
    return int(source.preprocessor.get("max_num_patches", 256))


def _naflex_values(source: Source) -> int:
    vision = getattr(source.config, "vision_config", source.config)
    return int(vision.num_channels * vision.patch_size**2)


OVERRIDES: dict[str, Override] = {
    # Its classifier returns the scores in the field for features.
    "pp_lcnet": Override(output_aliases={"logits": "last_hidden_state"}),
    # Characters instead of tokens: every code point is an id, which the model hashes.
    "canine": Override(values={"input_ids": lambda _config: (0, 0x10FFFF)}),
    # A spectrogram of fixed length, called input_values.
    "audio-spectrogram-transformer": Override(
        layouts={"input_values": ("batch", "frames", "features")},
        sizes={
            "frames": lambda source: source.config.max_length,
            "features": lambda source: source.config.num_mel_bins,
        },
        unwanted={"attention_mask": "a spectrogram has no padded rows"},
    ),
    # Ten seconds, repeated or cut by the feature extractor.
    "clap": Override(
        layouts={"input_features": ("batch", "views", "frames", "features")},
        sizes={
            "views": lambda _source: 1,
            "frames": lambda source: source.preprocessor.get("nb_max_frames", 1000) + 1,
        },
    ),
    # The encoder's positions are as many as half of the frames, and it takes no other number.
    "whisper": Override(
        layouts={"input_features": ("batch", "features", "frames")},
        sizes={
            "features": lambda source: source.config.num_mel_bins,
            "frames": lambda source: 2 * source.config.max_source_positions,
        },
    ),
    "wav2vec2-bert": Override(sizes={"features": lambda source: source.config.feature_projection_input_dim}),
    # The colours of the pixels, row by row, as token ids.
    "imagegpt": Override(groups=("text",)),
    # A longer sequence switches its attention to sparse blocks, for all later calls too.
    "big_bird": Override(
        longest={
            "sequence": lambda config: (
                (5 + 2 * config.num_random_blocks) * config.block_size
                if config.attention_type == "block_sparse"
                else None
            )
        }
    ),
    # Truncates longer texts by a decision that a trace would keep.
    **dict.fromkeys(
        ("grounding-dino", "mm-grounding-dino"), Override(longest={"sequence": lambda config: config.max_text_len})
    ),
    # The bare model takes vectors instead of ids. The masked language model gives an output at every position of its
    # table, so its tokenizer pads to that length.
    "perceiver": Override(
        sizes={
            "features": lambda source: source.config.d_model,
            "sequence": lambda source: (
                source.config.max_position_embeddings if source.task.name == "fill-mask" else None
            ),
        },
    ),
    # Video clips, under the parameter name of a single image.
    **dict.fromkeys(
        ("timesformer", "videomae", "vivit"),
        Override(layouts={"pixel_values": ("batch", "images", "channels", "height", "width")}),
    ),
    # An image smaller than the windows of the last stage makes them smaller for all later images too.
    **dict.fromkeys(("swin", "donut-swin"), Override(least={"height": _windowed_side, "width": _windowed_side})),
    # The image is cut into patches at three scales, the smallest as large as one patch.
    "depth_pro": Override(image=lambda config: int(config.patch_size / min(config.scaled_images_ratios))),
    # Each step has two frames and their deltas.
    "granite_speech5_ctc": Override(sizes={"features": lambda source: 4 * source.config.encoder_config.num_mel_bins}),
    # Patches of an image in its own proportions, as many as the processor pads to.
    **dict.fromkeys(
        ("siglip2", "siglip2_vision_model"),
        Override(
            layouts={"pixel_values": ("batch", "patches", "patch_values")},
            sizes={"patches": _naflex_patches, "patch_values": _naflex_values},
        ),
    ),
    # One size of pictures, for which the tables of positions are made. A picture takes a gigabyte or more in explicit
    # attention, and the encoder is as fast alone as in a batch.
    "sam": Override(sizes={"height": _sam_side, "width": _sam_side}, longest={"batch": lambda _config: 2}),
    # Features of regions of an image, found by another model.
    "lxmert": Override(sizes={"visual_features": lambda source: source.config.visual_feat_dim}),
    # The task's name as tokens of its own vocabulary.
    "oneformer": Override(
        sizes={"task_tokens": lambda source: source.config.task_seq_len},
        values={"task_inputs": lambda config: (0, config.text_encoder_vocab_size - 1)},
    ),
    # Its boxes are relative to the page, from 0 to 1.
    "bros": Override(floats=("bbox",)),
    # Seven kinds of token types per token, each with its own number of values: the smallest has two.
    "tapas": Override(
        layouts={"token_type_ids": ("batch", "sequence", "type_kinds")},
        sizes={"type_kinds": lambda source: len(source.config.type_vocab_sizes)},
        values={"token_type_ids": lambda config: (0, min(config.type_vocab_sizes) - 1)},
    ),
}


def _override(source: Source) -> Override:
    return OVERRIDES.get(source.info.type, Override())


def layout(source: Source, name: str) -> tuple[str, ...] | None:
    """The axes of a parameter, if they are not the usual ones."""
    return _override(source).layouts.get(name)


def takes_patches(source: Source) -> bool:
    """Whether images are grids of patches, each with its own height and width."""
    return "patches" in (layout(source, "pixel_values") or ())


def unwanted(source: Source, name: str) -> str | None:
    """Why a parameter is left out, or None."""
    return _override(source).unwanted.get(name)


def values(source: Source, name: str) -> ValueRange | None:
    """The integers that a parameter may hold, if they are not the usual ones."""
    found = _override(source).values.get(name)
    return ValueRange(*found(source.config)) if found is not None else None


def is_float(source: Source, name: str) -> bool:
    """Whether a parameter that usually holds integers holds floating-point numbers."""
    return name in _override(source).floats


def multiple(source: Source, name: str) -> int:
    """The number of which the size of an axis must be a multiple."""
    found = _override(source).multiples.get(name)
    return found(source.config) if found is not None else 1


def fixed_size(source: Source, name: str, image: Size) -> int | None:
    """The only size of an axis, or None if it varies; `image` is the size of the traced example's images."""
    found = _override(source).sizes.get(name)
    if found is not None:
        return found(source)
    vision = getattr(source.config, "vision_config", source.config)
    fixed = {
        "channels": int(getattr(vision, "num_channels", 3) or 3),
        "coordinates": 4,
        "xy": 2,
        "features": _features(source),
        "images": int(getattr(vision, "num_frames", 0) or getattr(source.config, "frames_per_clip", 0) or 16),
    }
    if name == "patches":
        side = getattr(vision, "patch_size", 16)
        return (image[0] // int(side)) * (image[1] // int(side))
    return fixed.get(name)


def longest(source: Source, name: str) -> int | None:
    """The largest size of an axis, or None if the architecture sets no limit."""
    found = _override(source).longest.get(name)
    return found(source.config) if found is not None else None


def least(source: Source, name: str) -> int:
    """The smallest size of an axis that the architecture demands."""
    found = _override(source).least.get(name)
    return found(source.config) if found is not None else 1


def _features(source: Source) -> int:
    """Features per audio frame: from the feature extractor, else the configuration of the model or its encoder."""
    feature_size = source.preprocessor.get("feature_size")
    if isinstance(feature_size, int) and feature_size > 1:
        return feature_size
    for holder in (source.config, *(getattr(source.config, name, None) for name in ("encoder_config", "audio_config"))):
        for name in ("num_mel_bins", "input_dim", "input_feat_per_channel"):
            size = getattr(holder, name, None)
            if isinstance(size, int):
                return size
    return 80


def output_aliases(source: Source) -> Mapping[str, str]:
    """Outputs that the model gives under another name: the task's name → the model's."""
    return _override(source).output_aliases


def refused(source: Source) -> str | None:
    """Why the model type cannot be exported at all, or None."""
    return _override(source).refused


def groups(source: Source) -> tuple[Group, ...]:
    """The kinds of data that go in, if they are not the task's."""
    return _override(source).groups


def configured_image(source: Source) -> Size | None:
    """Height and width that the model was configured for, or None if its configuration does not say."""
    config = source.config
    side = _override(source).image
    if side is not None:
        return side(config), side(config)
    for holder in (config, getattr(config, "vision_config", None), getattr(config, "backbone_config", None)):
        size = getattr(holder, "image_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return int(size[0]), int(size[1])
    return None
