"""From the settings of an image processor to what a file computes; a setting that is not known is told, not guessed.

What is made of the settings is compared with the processor itself before it is used
(`exporter.loading.image_preprocessing`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from exporter.preprocessing import images
from exporter.preprocessing.preprocessor import Preprocessor
from exporter.preprocessing.resampling import BILINEAR
from runtime.format.manifest import Axis, Preprocessing

# Larger pictures are refused: nobody has them, and a crafted one would fill the memory.
LARGEST_SIDE = 2**14

_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor"),
    *("rescale_offset", "include_top", "do_normalize", "image_mean", "image_std", "do_flip_channel_order", "do_pad"),
    *("pad_size", "size_divisor", "keep_aspect_ratio", "ensure_multiple_of"),
}
# About labels and annotations, about how pictures are passed, or about the processor as a Python object.
_OF_NO_EFFECT = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "default_to_square", "format"),
    *("do_convert_annotations", "do_reduce_labels", "reduce_labels", "ignore_index", "num_labels", "do_convert_rgb"),
    *("data_format", "input_data_format", "device", "return_tensors", "disable_grouping", "_valid_processor_keys"),
    *("mask_size", "mask_pad_size"),
    *("return_segmentation_masks", "num_text", "repo_path", "class_info_file", "metadata", "backend", "num_queries"),
}
# Switches that change something only where they are on.
_OFF = {"do_split_image", "do_grayscale", "apply_ocr", "do_thumbnail", "do_align_long_axis", "do_color_quantize"}


class UnknownSettingError(Exception):
    """Something that the processor does is not known; the text says what."""


@dataclass(frozen=True)
class ImageSettings:
    """What is done to a picture, in the order of `exporter.preprocessing.images`.

    `step` is the largest difference that one step of 255 makes in the result.
    """

    rule: tuple[int, int, int, int]
    resample: int
    crop: tuple[int, int]
    table: torch.Tensor
    reverse: bool
    pad: tuple[int, int]

    @property
    def step(self) -> float:
        """The largest difference between the results of neighbouring values."""
        return float((self.table[:, 1:] - self.table[:, :-1]).abs().max())

    def preprocessor(self, mask: bool, adaptive: bool, upper_left: bool) -> Preprocessor:
        """As what a file is given; `mask`: with `pixel_mask`. The other two are those of the functions."""
        function: Any = images.masked_image_inputs if mask else images.image_inputs
        sides = (Axis("height", 1, LARGEST_SIDE), Axis("width", 1, LARGEST_SIDE), Axis("channels", 3, 3))
        inputs = ("pixel_values", "pixel_mask") if mask else ("pixel_values",)
        constants = (list(self.rule), self.resample, adaptive, list(self.crop), upper_left, self.table, self.reverse)
        return Preprocessor(function, (*constants, list(self.pad)), Preprocessing("image", sides, inputs, pads=mask))


def read_image_settings(family: str, settings: Mapping[str, Any]) -> ImageSettings:
    """What a processor does.

    Args:
        family: its class without `ImageProcessor`, such as `ViT`.
        settings: all of its settings, defaults included.

    Raises:
        UnknownSettingError: one is not known.
    """
    for key, value in settings.items():
        if key not in _READ | _OF_NO_EFFECT and not (key in _OFF and not value) and value is not None:
            raise UnknownSettingError(f"its setting {key} is not known")
    if family == "Perceiver":
        raise UnknownSettingError("it crops before it resizes")
    resample = settings.get("resample")
    crop = _pair(settings, "crop_size") if settings.get("do_center_crop") else (0, 0)
    found = ImageSettings(
        rule=_rule(family, settings),
        resample=BILINEAR if resample is None else int(resample),
        crop=crop,
        table=_table(settings),
        reverse=bool(settings.get("do_flip_channel_order")),
        pad=_pair(settings, "pad_size") if settings.get("do_pad") and settings.get("pad_size") else (0, 0),
    )
    if not 0 <= found.resample <= 5:
        raise UnknownSettingError(f"its resample {found.resample} is not known")
    if family == "ConvNext" and settings.get("do_resize"):
        side = _number(settings["size"], "shortest_edge")
        if side < 384:
            shortest = int(side / float(settings.get("crop_pct") or 224 / 256))
            return dataclasses.replace(found, rule=(images.SHORTEST, shortest, 0, 0), crop=(side, side))
        return dataclasses.replace(found, rule=(images.EXACT, side, side, 0))
    if "crop_pct" in settings and settings["crop_pct"] is not None and family != "ConvNext":
        raise UnknownSettingError("its setting crop_pct is not known")
    return found


def _rule(family: str, settings: Mapping[str, Any]) -> tuple[int, int, int, int]:
    divisor = settings.get("size_divisor")
    step = 0
    if divisor:
        if family not in ("GLPN", "MaskFormer", "Mask2Former"):
            raise UnknownSettingError("its setting size_divisor is not known")
        step = -int(divisor) if family == "GLPN" else int(divisor)
    if not settings.get("do_resize"):
        return (images.KEEP, 0, 0, 0)
    if family == "GLPN":
        return (images.KEEP, 0, 0, step)
    size = settings.get("size")
    if not isinstance(size, Mapping):
        raise UnknownSettingError(f"its size is {size!r}")
    keys = {key for key, value in size.items() if value is not None}
    multiple = settings.get("ensure_multiple_of") or 1
    if settings.get("keep_aspect_ratio") or multiple != 1:
        if keys != {"height", "width"} or int(multiple) != multiple or not settings.get("keep_aspect_ratio"):
            raise UnknownSettingError("its setting ensure_multiple_of is not known")
        return (images.NEAREST_ASPECT, *_pair(settings, "size"), int(multiple))
    if keys == {"height", "width"}:
        return (images.EXACT, *_pair(settings, "size"), step)
    if keys == {"max_height", "max_width"}:
        return (images.WITHIN, _number(size, "max_height"), _number(size, "max_width"), step)
    if keys == {"shortest_edge", "longest_edge"}:
        edges = (_number(size, "shortest_edge"), _number(size, "longest_edge"))
        return (images.YOLOS, *edges, -16) if family == "Yolos" else (images.SHORTEST_LONGEST, *edges, step)
    if keys == {"longest_edge"} and family == "Sam":
        return (images.LONGEST, _number(size, "longest_edge"), 0, step)
    if keys == {"shortest_edge"}:
        shortest = _number(size, "shortest_edge")
        return (images.SHORTEST, int(256 / 224 * shortest) if family == "Levit" else shortest, 0, step)
    raise UnknownSettingError(f"its size {sorted(keys)} is not known")


def _pair(settings: Mapping[str, Any], name: str) -> tuple[int, int]:
    size = settings.get(name)
    if not isinstance(size, Mapping):
        raise UnknownSettingError(f"its {name} is {size!r}")
    return _number(size, "height"), _number(size, "width")


def _number(size: Any, key: str) -> int:
    value = size.get(key) if isinstance(size, Mapping) else None
    if not isinstance(value, int) or not 1 <= value <= LARGEST_SIDE:
        raise UnknownSettingError(f"its {key} is {value!r}")
    return value


def _table(settings: Mapping[str, Any]) -> torch.Tensor:
    """[3, 256]: what becomes of each value of a channel, by the arithmetic of transformers' PIL processors."""
    table = torch.arange(256, dtype=torch.float64).repeat(3, 1)
    if settings.get("do_rescale"):
        table = table * float(settings.get("rescale_factor") or 1 / 255)
    table = table.to(torch.float32)
    if settings.get("do_rescale") and settings.get("rescale_offset"):
        table = table - 1
    mean, std = (_channels(settings, name) for name in ("image_mean", "image_std"))
    if settings.get("do_normalize"):
        table = (table - mean) / std
    if settings.get("include_top"):
        table = table / std
    if not bool(table.isfinite().all()):
        raise UnknownSettingError("its image_mean or image_std gives numbers that are not finite")
    return table


def _channels(settings: Mapping[str, Any], name: str) -> torch.Tensor:
    if not (settings.get("do_normalize") or settings.get("include_top")):
        return torch.ones(3, 1)
    value = settings.get(name)
    numbers = list(value) if isinstance(value, Sequence) else [value] * 3
    if len(numbers) != 3 or not all(isinstance(number, (int, float)) for number in numbers):
        raise UnknownSettingError(f"its {name} is {value!r}")
    return torch.tensor(numbers, dtype=torch.float32).unsqueeze(1)
