"""Make a model configuration small.

The result has the same class and behaviour (activation, positions, norms, attention kinds) with small sizes, including
sub-configurations. A combination of sizes that the architecture does not admit fails when the model is built.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from tests.model_matrix.overrides import HEADS, KEPT, LAYERS, OVERRIDES, TARGETS, WIDTH

# Lists with one entry per stage.
DEPTHS = re.compile(
    r"depths?|blocks_per_stage|stage_num(b_of_layers|_blocks)|num_block_repeats|block_sizes|n_attn_blocks"
)
WIDTHS = re.compile(
    r".*(hidden_sizes?|embed_dims?|channels|conv_dim|tdnn_dim|feature_dims|channel_list|fusion_dims|intermediate_size)|"
    r"embed_dim_per_stage|base_attn_unit_dims"
)
# Lists that name layers by their number.
LAYER_NUMBERS = re.compile(r".*_(indexes|indices|index|idxs|hook_ids|layer_ids)|extract_layers")
# What says nothing of the architecture.
BOOKKEEPING = re.compile("transformers_version|architectures|dtype|id2label|label2id|return_dict|problem_type")
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth", "encoder_layers")


def shrunk(config: PretrainedConfig, light: bool = False) -> PretrainedConfig:
    """The same configuration, small; `light` shrinks layers and vocabulary only."""
    if config.model_type == "timm_backbone":
        return _own_backbone(config)
    # Which stages a backbone gives is an attribute of its own.
    fields = {field.name for field in dataclasses.fields(config)} | {"_out_indices"}
    values = {name: value for name, value in vars(config).items() if name in fields and not BOOKKEEPING.fullmatch(name)}
    # Some fields are stored under another name.
    stored = {name: config.attribute_map.get(name) for name in fields if name not in values}
    values |= {name: vars(config)[other] for name, other in stored.items() if other in vars(config).keys() - fields}
    changed = {name: _small(config, name, value, light) for name, value in values.items()}
    changed |= _unset(changed) | _per_layer(values, changed)
    if not light:
        changed |= _image(values) | _stages(values, changed)
        _ropes(changed)
    for name, alias in (("_out_indices", "out_indices"), ("_out_features", "out_features")):
        if name in changed:
            changed[alias] = changed.pop(name)
    for name, value in OVERRIDES.get(config.model_type, {}).items():
        if isinstance(changed.get(name), PretrainedConfig):
            for inner, setting in value.items():
                setattr(changed[name], inner, setting)
        else:
            changed[name] = value
    if changed.get("out_indices") is not None:
        changed.pop("out_features", None)
    result = type(config)(**changed)
    for name, value in vars(config).items():
        # What a larger model's configuration adds to a part's.
        if name not in fields and not name.startswith("_") and not hasattr(result, name):
            setattr(result, name, value)
    return result


def _own_backbone(config: PretrainedConfig) -> PretrainedConfig:
    """A ResNet of transformers itself, in the place of one that would need the timm package."""
    return shrunk(AutoConfig.for_model("resnet", out_indices=list(config.out_indices or [4])))


def _small(config: PretrainedConfig, name: str, value: Any, light: bool) -> Any:
    """One attribute, shrunk by its name."""
    if isinstance(value, PretrainedConfig):
        return shrunk(value, light)
    if name in KEPT or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _small_number(config, name, value, light)
    if isinstance(value, (list, tuple)) and value and all(type(item) is int for item in value):
        return type(value)(_small_list(config, name, list(value), light))
    return value


def _small_number(config: PretrainedConfig, name: str, value: int, light: bool) -> int:
    if light and not re.fullmatch(r".*(vocab_size|layers?|depth)", name):
        return value
    if re.fullmatch(r".*(key_value_.*heads|kv_n?_?heads|num_kv_heads)", name):
        return _key_value_heads(config, value)
    target = next((target for pattern, target in TARGETS if re.fullmatch(pattern, name)), value)
    if target == HEADS and value < HEADS:
        return 1 if value in (1, 3) else value
    return min(value, target)


def _unset(changed: dict[str, Any]) -> dict[str, Any]:
    """Sizes that some configurations leave to their user."""
    heads, width = changed.get("num_attention_heads"), changed.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(width, int):
        return {}
    defaults = {"head_dim": width // heads, "num_key_value_heads": heads}
    return {name: value for name, value in defaults.items() if name in changed and changed[name] is None}


def _key_value_heads(config: PretrainedConfig, value: int) -> int:
    """Heads of keys and values: as many as of queries, one, or some between, as the default has it."""
    queries = vars(config).get("num_attention_heads", value)
    if value == 1 or not isinstance(queries, int):
        return value
    return min(queries, HEADS) if value >= queries else min(value, HEADS // 2)


def _small_list(config: PretrainedConfig, name: str, value: list[int], light: bool) -> list[int]:
    if DEPTHS.fullmatch(name):
        # Of layers with windows, every other one shifts them.
        first = 2 if "window_size" in vars(config) else 1
        return [min(first, value[0]), *(min(1, item) for item in value[1:])]
    if light or not WIDTHS.fullmatch(name):
        return value
    if len(set(value)) == 1:
        return [min(item, WIDTH) for item in value]
    return [item if item < 8 else max(8, -(-item // 64) * 8) for item in value]


def _per_layer(values: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """How many layers, and the lists that have one entry per layer: every kind of layer once, in their order."""
    counter = next((name for name in LAYER_COUNTS if isinstance(values.get(name), int)), None)
    if counter is None:
        return {}
    before, lists = values[counter], {}
    if any(DEPTHS.fullmatch(name) and isinstance(v, (list, tuple)) and len(v) == before for name, v in values.items()):
        return {counter: before}  # of stages, not of layers
    numbers = {
        name: list(value)
        for name, value in values.items()
        if isinstance(value, (list, tuple)) and value and (LAYER_NUMBERS.fullmatch(name))
    }
    for name, value in values.items():
        if isinstance(value, (list, tuple)) and len(value) == before > 1 and name not in numbers:
            lists[name] = list(changed[name])
    kinds: dict[str, int] = {}
    for number in range(before):
        kinds.setdefault(repr([value[number] for value in lists.values()]), number)
    taken = sorted(kinds.values())[:8]
    taken += [number for number in range(before) if number not in taken][: max(0, LAYERS - len(taken))]
    taken.sort()
    layers = max([len(taken), *(len(value) for value in numbers.values())])
    taken = (taken + [taken[-1]] * layers)[:layers]
    result: dict[str, Any] = {counter: min(before, layers)}
    result |= {name: [value[number] for number in taken] for name, value in lists.items()}
    for name, value in numbers.items():
        result[name] = _renumbered(value, before, layers)
    return result


def _renumbered(value: list[int], before: int, layers: int) -> list[int]:
    """Numbers of layers, brought inside so many layers, in the same order; the last one stays the last."""
    if max(value) < layers or min(value) < 0 or max(value) > before:
        return value
    first = layers - len(value) + (1 if max(value) == before else 0)
    return [first + place for place in range(len(value))]


def _image(values: dict[str, Any]) -> dict[str, Any]:
    """The side of the image: 64, or four patches where 64 is not a multiple of the patch."""
    size, patch = values.get("image_size"), values.get("patch_size")
    if size is None:
        return {}
    sides = patch if isinstance(patch, (list, tuple)) else [patch or 16]
    side = 64 if len(sides) > 2 or 64 % sides[0] == 0 or sides[0] < 8 else 4 * sides[0]
    return {"image_size": type(size)([side] * len(size)) if isinstance(size, (list, tuple)) else min(size, side)}


def _stages(values: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Widths of the stages as multiples of their attention heads, where heads are counted by the stage."""
    heads = next(
        (values[n] for n in ("num_attention_heads", "num_heads") if isinstance(values.get(n), (list, tuple))), None
    )
    result: dict[str, Any] = {}
    if heads is None:
        return result
    for name, value in changed.items():
        if WIDTHS.fullmatch(name) and isinstance(value, (list, tuple)) and len(value) == len(heads):
            result[name] = type(value)(8 * count for count in heads)
        if name == "embed_dim" and isinstance(value, int):
            result[name] = 8 * heads[0]
    return result


def _ropes(changed: dict[str, Any]) -> None:
    """Sections of a multi-axis rotary embedding must add up to half of a head."""
    parameters = changed.get("rope_parameters")
    if isinstance(parameters, dict) and parameters.get("mrope_section"):
        changed["rope_parameters"] = {**parameters, "mrope_section": [2, 3, 3]}
