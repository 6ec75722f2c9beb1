"""The parameters of models' forwards and the sizes to try along their axes, as pure data.

The names are those of transformers. A parameter that is not listed keeps its default. To support one more, add it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.format.manifest import DType

Group = Literal["text", "image", "audio"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a forward.

    `group` is the kind of data it belongs to. `fill` is the constant that replaces it if the caller leaves it out.
    """

    group: Group
    axes: tuple[str, ...]
    dtype: DType = "int64"
    fill: int | None = None


PARAMETERS: dict[str, Parameter] = {
    "input_ids": Parameter("text", ("batch", "sequence")),
    "attention_mask": Parameter("text", ("batch", "sequence"), fill=1),
    "pooling_mask": Parameter("text", ("batch", "sequence"), fill=1),
    "global_attention_mask": Parameter("text", ("batch", "sequence")),
    "token_type_ids": Parameter("text", ("batch", "sequence"), fill=0),
    "bbox": Parameter("text", ("batch", "sequence", "coordinates")),
    "decoder_input_ids": Parameter("text", ("batch", "decoder_sequence")),
    "inputs": Parameter("text", ("batch", "sequence", "features"), "float32"),
    "visual_feats": Parameter("text", ("batch", "regions", "visual_features"), "float32"),
    "visual_pos": Parameter("text", ("batch", "regions", "coordinates"), "float32"),
    "pixel_values": Parameter("image", ("batch", "channels", "height", "width"), "float32"),
    "pixel_values_videos": Parameter("image", ("batch", "images", "channels", "height", "width"), "float32"),
    # Only where the images are patches (`patches` says whether): other models mean something else by these names.
    "pixel_attention_mask": Parameter("image", ("batch", "patches")),
    "spatial_shapes": Parameter("image", ("batch", "xy")),
    "task_inputs": Parameter("image", ("batch", "task_tokens")),
    "pixel_mask": Parameter("image", ("batch", "height", "width"), fill=1),
    # Only for tasks whose pictures come with prompts. Places are x and y, in pixels of the model's picture.
    "input_points": Parameter("image", ("batch", "prompts", "points", "xy"), "float32"),
    "input_labels": Parameter("image", ("batch", "prompts", "points"), fill=1),
    "bool_masked_pos": Parameter("image", ("batch", "patches")),
    "input_values": Parameter("audio", ("batch", "samples"), "float32"),
    "input_features": Parameter("audio", ("batch", "frames", "features"), "float32"),
}

# Masks, in the order in which they are looked for → the axes along which they allow shorter rows.
MASKS = {"attention_mask": ("sequence", "samples", "frames"), "pixel_mask": ("width",)}


@dataclass(frozen=True)
class Tries:
    """Sizes along one axis: the traced example's, three others to try, and the largest if the model sets none.

    With `relative`, all but the example are percentages of the example's size. They are limited to what the model
    admits (exporter.shapes.test_shapes). `least` is the smallest supported size, `limit` the largest that is declared
    unless the user asks for another; None: `longest`. A limit beyond `longest` is verified once.
    """

    example: int
    short: int
    odd: int
    middle: int
    longest: int | None
    least: int = 1
    relative: bool = False
    limit: int | None = None


# Of feature extractors whose folder does not say otherwise.
SAMPLING_RATE, FRAMES_PER_SECOND = 16000, 100
# The longest sound that is declared unless the user asks for another.
USUAL_SECONDS = 30

# Lengths of text in tokens, of audio in samples at 16 kHz and in frames of 10 ms, of images in pixels.
# The memory of attention in eager fp32, the reference, grows with the square of the length; this limits the longest.
TRIES: dict[str, Tries] = {
    "batch": Tries(2, 1, 3, 5, None),
    "texts": Tries(3, 2, 1, 4, None),
    "choices": Tries(2, 3, 2, 4, None),
    "sequence": Tries(128, 8, 13, 37, 2048),
    "decoder_sequence": Tries(16, 5, 7, 11, 256),
    "prompts": Tries(2, 1, 3, 4, 32),
    "points": Tries(4, 1, 2, 5, 16),
    "regions": Tries(36, 5, 10, 20, 64),
    "samples": Tries(16000, 4000, 13337, 24001, 80000, least=4000, limit=USUAL_SECONDS * SAMPLING_RATE),
    "frames": Tries(128, 64, 90, 201, 512, least=64, limit=USUAL_SECONDS * FRAMES_PER_SECOND),
    # Images that are not square, of sizes that are no multiples of patches, windows and strides: only these show
    # whether a trace has kept the padding of its example.
    "height": Tries(224, 50, 83, 69, 143, least=50, relative=True),
    "width": Tries(224, 69, 57, 143, 131, least=50, relative=True),
}
