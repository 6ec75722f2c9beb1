"""Derive the inputs of a model: which parameters of its forward, with which axes, sizes and values.

The rules here hold for all architectures; what holds for a single one is in `exporter.shapes.architecture_overrides`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.config.forward_parameters import MASKS, PARAMETERS, TRIES, Group, Parameter
from exporter.loading.loader import Source
from exporter.loading.prompts import CORNERS, PADDING
from exporter.shapes import architecture_overrides
from exporter.shapes.image_sizes import ImageSizes
from exporter.shapes.test_shapes import Dimension
from runtime.errors import TaskError
from runtime.format.manifest import Axis, TensorSpec, ValueRange


@dataclass(frozen=True)
class Derived:
    """The inputs in the order of the forward's parameters, and their axes by name.

    Rows may be padded along `padded_axis`; None if they cannot. `dropped` are parameters left at their default, each
    with the reason.
    """

    inputs: tuple[TensorSpec, ...]
    dimensions: Mapping[str, Dimension]
    padded_axis: str | None
    dropped: Mapping[str, str]


def derive(
    source: Source,
    examples: Mapping[str, int],
    images: ImageSizes,
    every: bool = False,
    limits: Mapping[str, int] | None = None,
) -> Derived:
    """The inputs of a model.

    Args:
        source: the model.
        examples: sizes of the traced example that the user asked for, by axis name.
        images: the sizes of images.
        every: all inputs that are known, not only those of the task or of the kind of the main input.
        limits: the largest size of an axis that is declared, by its name, where it is not the usual one.

    Raises:
        TaskError: none of the model's inputs is known, or it is known that the model cannot be traced.
    """
    reason = architecture_overrides.refused(source)
    if reason is not None:
        raise TaskError(f"model type {source.info.type!r}: {reason}", "a model that a trace can follow")
    parameters = inspect.signature(source.model.forward).parameters
    names = [*parameters]
    if source.sentence_head is not None and not source.sentence_head.include_prompt:
        # Not a parameter of the model: it tells the pooling which tokens belong to a prompt.
        names.append("pooling_mask")
    if not architecture_overrides.takes_patches(source):
        names = [name for name in names if name not in ("pixel_attention_mask", "spatial_shapes")]
    if not source.task.prompted:
        names = [name for name in names if name not in ("input_points", "input_labels")]
    known = {name: PARAMETERS[name] for name in names if name in PARAMETERS}
    groups = {parameter.group for parameter in known.values()} if every else _groups(source, known)
    dropped: dict[str, str] = {}
    specs: list[TensorSpec] = []
    dimensions: dict[str, Dimension] = {}
    for name, parameter in known.items():
        if name not in ("attention_mask", "decoder_input_ids") and parameter.group not in groups:
            continue
        reason = architecture_overrides.unwanted(source, name) or _unwanted(source, name, groups, every)
        if reason is not None:
            dropped[name] = reason
            continue
        axes = _axes(source, name, parameter, groups, images, limits or {})
        for axis in axes:
            example = examples.get(axis.name) or _example(axis, images)
            dimensions.setdefault(axis.name, Dimension(axis, Dimension(axis, example).within(example)))
        specs.append(_spec(source, name, parameter, axes))
    if not any(spec.fill is None for spec in specs):
        raise TaskError(
            f"{type(source.model).__name__} takes {', '.join(parameters)}",
            f"one of {', '.join(name for name, parameter in PARAMETERS.items() if parameter.fill is None)}",
            "this kind of model is not supported",
        )
    names = [spec.name for spec in specs]
    padded = next((axis for mask, axes in MASKS.items() if mask in names for axis in axes if axis in dimensions), None)
    return Derived(tuple(specs), dimensions, padded, dropped)


def _groups(source: Source, known: Mapping[str, Parameter]) -> set[Group]:
    """The kinds of data: those of the task, else the kind of the model's main input."""
    if architecture_overrides.groups(source):
        return set(architecture_overrides.groups(source))
    if source.task.groups:
        return set(source.task.groups)
    main = getattr(source.model, "main_input_name", "input_ids")
    mains = [main] if isinstance(main, str) else list(main)
    found: set[Group] = {PARAMETERS[name].group for name in mains if name in PARAMETERS}
    return found or {parameter.group for parameter in known.values() if parameter.fill is None}


def _unwanted(source: Source, name: str, groups: set[Group], every: bool) -> str | None:
    """Why a parameter that the forward takes is left at its default, or None."""
    if name == "inputs" and getattr(source.model, "main_input_name", "") != "inputs":
        return "another name for inputs of all kinds"
    if name == "inputs" and source.task.name != "feature-extraction":
        return "input_ids or pixel_values say what kind it is"
    if name == "global_attention_mask" and not (source.info.type == "longformer" and _global_by_separators(source)):
        return "the model chooses the tokens of global attention"
    if name == "token_type_ids" and (types := type_count(source.model, source.config)) < 2:
        return f"the model has {types} token types, so it can only hold zeros"
    if name == "bool_masked_pos" and source.task.name != "masked-image-modeling":
        return "nothing is masked outside masked-image-modeling"
    if name == "decoder_input_ids" and source.task.name != "text2text-scoring" and not every:
        return "the model makes it from its other inputs"
    if name == "attention_mask" and source.text_padding is not None and not source.text_padding.masked:
        return f"texts are padded to {source.text_padding.length} tokens, and the model reads the padding too"
    if name == "token_type_ids" and source.task.generates:
        return "a text that is written on has one kind of token"
    if name == "attention_mask" and source.task.generates:
        return "rows are padded behind their last token, where no token before sees it"
    if name == "attention_mask" and groups == {"image"}:
        return "images have no padded rows"
    if name == "attention_mask" and groups == {"audio"} and not _takes_audio_mask(source):
        return "the feature extractor gives none: the model was trained on zero-padded audio"
    return None


def _global_by_separators(source: Source) -> bool:
    """For these tasks Longformer would look for exactly three separators per row; the mask is an input instead."""
    return source.task.name in ("question-answering", "multiple-choice")


def _takes_audio_mask(source: Source) -> bool:
    """From the folder's feature extractor, else by the rule in transformers' documentation of Wav2Vec2."""
    setting = source.preprocessor.get("return_attention_mask")
    if isinstance(setting, bool):
        return setting
    return getattr(source.config, "feat_extract_norm", "layer") != "group"


def _axes(
    source: Source,
    name: str,
    parameter: Parameter,
    groups: set[Group],
    images: ImageSizes,
    limits: Mapping[str, int],
) -> tuple[Axis, ...]:
    layout = architecture_overrides.layout(source, name) or parameter.axes
    if name == "attention_mask" and "text" not in groups:
        # As long as the audio it belongs to.
        main = next((key for key in ("input_values", "input_features") if _takes(source, key)), "input_values")
        whole = architecture_overrides.layout(source, main) or PARAMETERS[main].axes
        layout = ("batch", *(axis for axis in whole if axis in ("samples", "frames")))
    if parameter.group == "text" and source.task.choices:
        layout = ("batch", "choices", *layout[1:])
    if parameter.group == "text" and groups >= {"text", "image"} and source.compares:
        # Every text is compared with every image: texts have a batch axis of their own.
        layout = ("texts", *layout[1:])
    return tuple(_axis(source, axis, images, limits.get(axis)) for axis in layout)


def _takes(source: Source, name: str) -> bool:
    return name in inspect.signature(source.model.forward).parameters


def _axis(source: Source, name: str, images: ImageSizes, asked: int | None) -> Axis:
    """The sizes that the model admits along one axis, of which `asked` is the largest if it is given."""
    fixed = architecture_overrides.fixed_size(source, name, images.example)
    if fixed is not None:
        return Axis(name, fixed, fixed)
    if name == "sequence" and source.text_padding is not None:
        return Axis(name, source.text_padding.length, source.text_padding.length)
    tries = TRIES[name]
    multiple = architecture_overrides.multiple(source, name)
    if tries.relative:
        low, high = images.bounds(name, architecture_overrides.least(source, name))
        return Axis(name, -(-low // multiple) * multiple, max(low, high // multiple * multiple), multiple)
    longest = asked or tries.limit or tries.longest
    if name == "sequence" and source.longest_sequence is not None:
        longest = min(source.longest_sequence, longest or source.longest_sequence)
    limit = architecture_overrides.longest(source, name)
    if limit is not None:
        longest = min(limit, longest or limit)
    if longest is not None:
        longest = longest // multiple * multiple
    return Axis(name, max(tries.least, multiple), longest, multiple)


def _example(axis: Axis, images: ImageSizes) -> int:
    if axis.minimum == axis.maximum:
        return axis.minimum
    if axis.name in ("height", "width"):
        return images.example[axis.name == "width"]
    return TRIES[axis.name].example


def _spec(source: Source, name: str, parameter: Parameter, axes: tuple[Axis, ...]) -> TensorSpec:
    if parameter.dtype == "float32" or architecture_overrides.is_float(source, name):
        return TensorSpec(name, "float32", axes)
    values = architecture_overrides.values(source, name) or _values(source, name)
    if values.maximum < values.minimum:
        raise TaskError(
            f"{name} could hold no value: the model's table for it has {values.maximum + 1} entries", "at least one"
        )
    required_token_id = source.config.eos_token_id if name == "input_ids" and needs_end_token(source) else None
    return TensorSpec(name, "int64", axes, values, parameter.fill, required_token_id)


def _values(source: Source, name: str) -> ValueRange:
    if name in ("input_ids", "decoder_input_ids"):
        return ValueRange(0, source.vocabulary - 1)
    if name == "token_type_ids":
        return ValueRange(0, type_count(source.model, source.config) - 1)
    if name == "spatial_shapes":
        # A side may be a single row of all patches.
        return ValueRange(1, architecture_overrides.fixed_size(source, "patches", (1, 1)) or 1)
    if name == "input_labels":
        return ValueRange(PADDING, CORNERS[-1])
    if name == "bbox":
        return ValueRange(0, int(getattr(source.config, "max_2d_position_embeddings", 1024)) - 1)
    return ValueRange(0, 1)


def needs_end_token(source: Source) -> bool:
    """Encoder-decoder models classify by the state at the end token, and need equally many of these in every row."""
    config = source.config
    return bool(
        source.task.classifies_texts
        and getattr(config, "is_encoder_decoder", False)
        and isinstance(getattr(config, "eos_token_id", None), int)
    )


def type_count(model: Any, config: Any) -> int:
    """The number of token types: of the table if it has its usual name, else from the configuration.

    If there are several tables (TAPAS), that of the largest.
    """
    for name, module in model.named_modules():
        if name.endswith("token_type_embeddings") and hasattr(module, "num_embeddings"):
            return int(module.num_embeddings)
    several = getattr(config, "type_vocab_sizes", None)
    return max(several) if several else int(getattr(config, "type_vocab_size", 0) or 0)
