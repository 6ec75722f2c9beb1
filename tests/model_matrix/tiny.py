"""Build a tiny random model for any model type and class in transformers' auto tables.

The model is in eval mode and float32, seeded, and has at most about 10 M parameters.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from tests.model_matrix.overrides import VOCABULARY
from tests.model_matrix.shrink import shrunk
from tests.model_matrix.weights import enliven, settle

# What a model that even the light shrinking leaves larger than this is refused for.
MOST_PARAMETERS = 60_000_000
_TOKEN = ("token_id", "token_ids", "token_index", "tokenid", "_id", "_ids")


def pairs(mapping_name: str) -> list[tuple[str, str]]:
    """The (model type, class name) pairs of one of transformers' auto tables."""
    table = getattr(modeling_auto, mapping_name)
    return [(model_type, _first(names)) for model_type, names in table.items()]


def _first(names: str | tuple[str, ...]) -> str:
    """The first of some class names that names a model transformers has."""
    if isinstance(names, str):
        return names
    return next(name for name in names if isinstance(getattr(transformers, name, None), type))


def tiny_config(model_type: str, light: bool = False) -> PretrainedConfig:
    """The default configuration of a model type, shrunk; `light` shrinks layers and vocabulary only."""
    config = shrunk(AutoConfig.for_model(model_type), light)
    _move_tokens(config)
    for part in _parts(config):
        if 0 < (getattr(part, "initializer_range", None) or 0) < 0.05:
            # At a width of 64, weights of the usual 0.02 leave attention near uniform: mistakes would not show.
            part.initializer_range = 0.06
    return config


def tiny_model(model_type: str, class_name: str) -> PreTrainedModel:
    """A small model of this class, with seeded random weights, in eval mode and float32."""
    try:
        return _built(tiny_config(model_type), class_name)
    except (
        ValueError,
        TypeError,
        RuntimeError,
        AssertionError,
        ZeroDivisionError,
        IndexError,
        AttributeError,
    ) as error:
        try:
            model = _built(tiny_config(model_type, light=True), class_name)
        except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError, IndexError, AttributeError):
            raise error from None
        if sum(parameter.numel() for parameter in model.parameters()) > MOST_PARAMETERS:
            raise
        return model


def _built(config: PretrainedConfig, class_name: str) -> PreTrainedModel:
    cls: Any = _class(config, class_name)
    config = _for_class(config, cls)
    torch.manual_seed(0)
    # Memory that a constructor leaves unset reads as NaN, which `enliven` then sees.
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        model: PreTrainedModel = cls(config)
    finally:
        torch.use_deterministic_algorithms(was)
    model = model.float().eval()
    enliven(model)
    _settle(model)
    return model


def _settle(model: PreTrainedModel) -> None:
    """Bring batch norms to what an image makes of them where they need it, in models that take images alone."""
    normed = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    size = getattr(model.config, "image_size", None) or 224
    if not normed or model.main_input_name != "pixel_values" or not isinstance(size, int):
        return
    # Others fail here: those that take text beside the image, or another number of channels.
    with suppress(TypeError, ValueError, RuntimeError, AttributeError):
        settle(model, torch.randn(2, 3, size, size))


def _class(config: PretrainedConfig, class_name: str) -> Any:
    """The class of this name; some that a table names are in their module only."""
    if hasattr(transformers, class_name):
        return getattr(transformers, class_name)
    module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    return getattr(module, class_name)


def _for_class(config: PretrainedConfig, cls: Any) -> PretrainedConfig:
    """The part of a composite configuration that this class takes, fit for a batch of rows."""
    wanted = cls.config_class
    if wanted is not None and not isinstance(config, wanted):
        config = next((part for part in _parts(config) if isinstance(part, wanted)), config)
    if cls.__name__.endswith(("ForCausalLM", "LMHeadModel", "WithLMHead")) and hasattr(config, "is_decoder"):
        # As such checkpoints are saved: an encoder's configuration would look at tokens to come.
        config.is_decoder = True
    if "SequenceClassification" in cls.__name__:
        for part in _parts(config):
            if hasattr(part, "vocab_size") and getattr(part, "pad_token_id", None) is None:
                # Decoders find the last token of a row by its padding, and refuse several rows without one.
                part.pad_token_id = VOCABULARY - 64
    return config


def _parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            yield from _parts(value)


def _move_tokens(config: PretrainedConfig) -> None:
    """Bring special tokens inside the vocabulary, each to one place in the whole configuration."""
    places: dict[int, int] = {}

    def moved(token: Any) -> Any:
        if isinstance(token, (list, tuple)):
            return type(token)(moved(item) for item in token)
        if type(token) is not int or token < VOCABULARY:
            return token
        return places.setdefault(token, VOCABULARY - 1 - len(places))

    for part in _parts(config):
        for name, value in list(vars(part).items()):
            if name.endswith(_TOKEN) and value is not None:
                setattr(part, name, moved(value))
