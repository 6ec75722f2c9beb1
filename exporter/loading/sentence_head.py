"""Read the modules that follow the model in a sentence-transformers folder: pooling, linear layers, norms.

A setting that is not supported is refused rather than ignored, and so are weights that are missing or of other sizes.
To add a module: a case in `_following`, its name in `exporter.loading.sentence_modules`, its keys in
`exporter.loading.known_settings`, its computation in `exporter.loading.pooling`. Heads of sparse models are read by
`exporter.loading.sparse_head`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from exporter.config.request import ExportRequest
from exporter.loading import known_settings
from exporter.loading.pooling import (
    ACTIVATIONS,
    MODES,
    Cut,
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    SentenceHead,
    TokenHead,
)
from exporter.loading.sentence_modules import Module, Modules
from exporter.loading.settings import Settings
from exporter.loading.weight_files import random_tensors, read_tensors
from runtime.errors import CheckpointError

_DAMAGED = "copy the whole folder again"


def read_sentence_head(
    settings: Settings, modules: Modules, truncate: int | None, hidden: int | None, request: ExportRequest
) -> SentenceHead:
    """The pooling and the modules that follow it.

    Args:
        settings: of the whole folder.
        modules: supported ones.
        truncate: how many numbers of a vector are kept; None: all.
        hidden: the size of a token's vector, if the configuration says it.
        request: whether weights may be pickled, or are random.

    Raises:
        CheckpointError: a setting that is not supported, or a damaged file.
        PickledWeightsError: the weights are pickled, which was not allowed.
    """
    pooling = _pooling(settings, modules.listed[1])
    width = None if hidden is None else hidden * len(pooling.modes)
    return SentenceHead(pooling, _all_following(settings, modules.listed[2:], truncate, width, request))


def read_following(
    settings: Settings, modules: Modules, truncate: int | None, request: ExportRequest
) -> list[torch.nn.Module]:
    """The modules that follow a tower, which pools by itself; arguments and errors as for `read_sentence_head`."""
    return _all_following(settings, modules.listed[1:], truncate, None, request)


def _all_following(
    settings: Settings, listed: Sequence[Module], truncate: int | None, width: int | None, request: ExportRequest
) -> list[torch.nn.Module]:
    """The modules after the pooling, which makes vectors of `width` numbers, and the cut to `truncate` numbers."""
    following: list[torch.nn.Module] = []
    for module in listed:
        made = _following(settings, module, request)
        if isinstance(made, (Dense, LayerNorm)):
            width = _width(settings, module, width, made)
        if made is not None:
            following.append(made)
    return [*following, *([] if truncate is None else [Cut(truncate)])]


def _pooling(settings: Settings, module: Module) -> Pooling:
    found = settings.read(module.config, known_settings.POOLING)
    if found is None:
        raise CheckpointError(
            f"{settings.files.id} has no {module.config}", "the configuration of its pooling", _DAMAGED
        )
    include = found.get("include_prompt", True)
    if not isinstance(include, bool):
        raise settings.refusal(module.config, "include_prompt", include, "it is neither true nor false")
    if "pooling_mode" in found:
        named = found["pooling_mode"]
        modes = [named] if isinstance(named, str) else named
    else:
        # If none of them is set the library takes the mean; a file without any of these keys is no pooling's.
        modes = [mode for key, mode in known_settings.LEGACY_POOLING.items() if found.get(key)]
        modes = modes or ["mean"] * bool(set(found) & set(known_settings.LEGACY_POOLING))
    if not isinstance(modes, list) or not modes or not all(mode in MODES for mode in modes):
        raise CheckpointError(
            f"{module.config} of {settings.files.id} asks for pooling {found.get('pooling_mode', '(none)')!r}"[:200],
            f"some of {', '.join(MODES)}",
            "export with --task feature-extraction for the vectors of tokens, and pool them yourself",
        )
    return Pooling(modes, include)


def _following(settings: Settings, module: Module, request: ExportRequest) -> torch.nn.Module | None:
    """One module after the pooling; None for one that does nothing outside of training."""
    if module.kind == "Dense":
        return _dense(settings, module, request)
    if module.kind == "LayerNorm":
        size = _size(settings, module, settings.read(module.config, known_settings.LAYER_NORM) or {}, "dimension")
        tensors = _tensors(settings, module, {"norm.weight": (size,), "norm.bias": (size,)}, request)
        return LayerNorm(tensors["norm.weight"], tensors["norm.bias"])
    if module.kind == "Normalize":
        # Older releases wrote no settings for it; some folders do not even exist.
        if module.path:
            settings.read(module.config, known_settings.NORMALIZE)
        return Normalize()
    settings.read(module.config, known_settings.DROPOUT)
    return None


def read_token_head(settings: Settings, modules: Modules, hidden: int | None, request: ExportRequest) -> TokenHead:
    """The modules that follow the model's token vectors; arguments and errors as for `read_sentence_head`."""
    following: list[torch.nn.Module] = []
    for module in modules.listed[1:]:
        if module.kind == "Dense":
            dense = _dense(settings, module, request, known_settings.TOKEN_DENSE)
            hidden = _width(settings, module, hidden, dense)
            following.append(dense)
        elif module.kind == "Normalize":
            _check_normalize(settings, module)
            following.append(Normalize())
    return TokenHead([*following, *([Normalize()] if modules.pylate else [])])


def _check_normalize(settings: Settings, module: Module) -> None:
    """Check that it normalises the vectors of tokens: without a setting the library takes the sentence's."""
    name = (settings.read(module.config, known_settings.TOKEN_NORMALIZE) or {}).get(
        "module_input_name", "sentence_embedding"
    )
    if name != "token_embeddings":
        raise settings.refusal(module.config, "module_input_name", name, "expected token_embeddings")


def _width(settings: Settings, module: Module, width: int | None, made: Dense | LayerNorm) -> int:
    """The size of the vectors that a module makes, which takes those of `width` numbers."""
    if width is not None and made.weight.shape[-1] != width:
        raise CheckpointError(
            f"{module.config} of {settings.files.id} takes vectors of {made.weight.shape[-1]} numbers",
            f"{width}, as the modules before it make",
            _DAMAGED,
        )
    return int(made.weight.shape[0])


def _dense(
    settings: Settings,
    module: Module,
    request: ExportRequest,
    table: known_settings.Table = known_settings.DENSE,
) -> Dense:
    found = settings.read(module.config, table) or {}
    name = found.get("activation_function", "torch.nn.modules.activation.Tanh")
    kind = ACTIVATIONS.get(_full_name(name)) if isinstance(name, str) else None
    if kind is None:
        raise settings.refusal(module.config, "activation_function", name, "the activation is not supported")
    bias = found.get("bias", True)
    if not isinstance(bias, bool):
        raise settings.refusal(module.config, "bias", bias, "it is neither true nor false")
    out = _size(settings, module, found, "out_features")
    sizes: dict[str, tuple[int, ...]] = {"linear.weight": (out, _size(settings, module, found, "in_features"))}
    tensors = _tensors(settings, module, sizes | ({"linear.bias": (out,)} if bias else {}), request)
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), kind())


def _size(settings: Settings, module: Module, found: dict[str, Any], key: str) -> int:
    size = found.get(key)
    if type(size) is not int or size < 1:
        raise CheckpointError(
            f"{module.config} of {settings.files.id} has {key} {size!r}"[:200], "a number from 1 on", _DAMAGED
        )
    return size


def _full_name(name: str) -> str:
    """The name of the class where it is defined, also for `torch.nn.Tanh`."""
    short = name.removeprefix("torch.nn.")
    return next((full for full in ACTIVATIONS if full.rpartition(".")[2] == short), name)


def _tensors(
    settings: Settings, module: Module, sizes: dict[str, tuple[int, ...]], request: ExportRequest
) -> dict[str, torch.Tensor]:
    """A module's weights: exactly those that its settings describe."""
    if request.random_weights:
        return random_tensors(sizes, request.seed)
    tensors = read_tensors(settings.files, module.path, request.allow_pickle)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != sizes:
        raise CheckpointError(
            f"the weights in {module.path} of {settings.files.id} are {found}"[:300],
            f"{sizes}, as its config.json says",
            _DAMAGED,
        )
    return tensors
