"""Read the head of a sentence-transformers folder: how token vectors become one vector.

In: `modules.json` and `1_Pooling/config.json`. Out: `SentenceHead`. Refuses modules and pooling modes that it
does not know, rather than leaving one out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporter.source.hub import Location, read_json
from exporter.source.tokenizer import default_prompt
from runtime.errors import CheckpointError

# Keys of 1_Pooling/config.json → the modes that exporter.adapter implements.
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KNOWN = ("cls", "mean", "max", "mean_sqrt_len")


@dataclass(frozen=True)
class SentenceHead:
    """Pooling modes, whose vectors are joined in this order, and whether to scale to length 1."""

    modes: tuple[str, ...]
    normalize: bool


def read_sentence_head(location: Location, modules: Any) -> SentenceHead:
    """Interpret the folder's modules.

    Raises:
        CheckpointError: a module or mode that is not known, or a damaged file.
    """
    try:
        stages = [(str(module["type"]).rsplit(".", 1)[-1], str(module.get("path", ""))) for module in modules]
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"modules.json of {location.id} is damaged ({error})", "a list of modules with type and path"
        ) from error
    kinds = [kind for kind, _ in stages]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(
            f"modules.json of {location.id} lists {', '.join(kinds) or 'nothing'}",
            "Transformer, Pooling and, at the end, perhaps Normalize",
            "export with --task feature-extraction and compute the rest yourself",
        )
    return SentenceHead(_modes(location, stages[1][1]), "Normalize" in kinds)


def _modes(location: Location, folder: str) -> tuple[str, ...]:
    config = read_json(location, f"{folder}/config.json")
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{location.id} has no usable {folder}/config.json", "the pooling's configuration", "copy the whole folder"
        )
    if config.get("include_prompt") is False and default_prompt(location):
        raise CheckpointError(
            f"{folder}/config.json leaves the default prompt out of the pooling",
            "a head that pools all tokens",
            "export with --task feature-extraction and pool yourself",
        )
    if "pooling_mode" in config:  # newer folders name the modes directly
        named = config["pooling_mode"]
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(
                f"{folder}/config.json: pooling_mode is {named!r}"[:200], f"some of {', '.join(_KNOWN)}"
            )
        modes = tuple(names)
    else:
        modes = tuple(mode for key, mode in _MODES.items() if config.get(key))
    unknown = [mode for mode in modes if mode not in _KNOWN]
    if unknown or not modes:
        raise CheckpointError(
            f"{folder}/config.json asks for pooling {', '.join(unknown or modes) or '(none)'}",
            f"some of {', '.join(_KNOWN)}",
        )
    return modes
