"""Folders that PyLate saved before its models became sentence-transformers' own: its settings as those of today.

`config_sentence_transformers.json` has the model type ColBERT, and beside each other what today is in the files of the
transformer and of the modules behind the linear layer, which `modules.json` does not list.
"""

from __future__ import annotations

import string
from typing import Any

from transformers import AddedToken

from exporter.loading.settings import Settings

MODEL_TYPE = "ColBERT"
# PyLate's class → the module that it is today.
MODULES = {"pylate.models.Dense.Dense": "Dense"}
# Prefix of the texts of a side → the prompt that it is today.
_PREFIXES = {"query_prefix": "query", "document_prefix": "document"}
# What only PyLate writes into that file.
_KEYS = (
    *("query_length", "document_length", "query_expansion", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)
_FILE = "config_sentence_transformers.json"


def with_prefixes(settings: Settings, model: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings with the prefixes in front of the prompts; and the prefixes.

    Raises:
        CheckpointError: a prefix is no text.
    """
    prompts, found = dict(model.get("prompts") or {}), []
    for key, name in _PREFIXES.items():
        if key not in model:
            continue
        prefix = model[key] or ""
        if not isinstance(prefix, str):
            raise settings.refusal(_FILE, key, prefix, "it is no text")
        prompts[name] = prefix + str(prompts.get(name) or "").removeprefix(prefix)
        found.append(prefix)
    return model | {"prompts": prompts}, tuple(found)


def lengths(model: dict[str, Any]) -> dict[str, Any]:
    """The transformer's settings: lengths, and the tokens that are added to queries unless the folder says no.

    Without any of PyLate's keys nothing is added: the library then leaves the transformer's own default.
    """
    made = {key: model[key] for key in ("query_length", "document_length") if model.get(key) is not None}
    if not any(key in model for key in _KEYS):
        return made
    if "query_expansion" in model:
        made["query_expansion"] = model["query_expansion"]
    elif model.get("do_query_expansion") is False:
        made["query_expansion"] = None
    else:
        attend = model.get("attend_to_expansion_tokens", model.get("attend_to_mask_tokens"))
        # What is the length of a query there is the length up to which it is filled here.
        length = made.pop("query_length", None) or 32
        made["query_expansion"] = {"strategy": "fixed", "attend": bool(attend), "length": length}
    return made


def left_out(model: dict[str, Any]) -> list[Any]:
    """The tokens that are left out of documents; punctuation unless the folder names others."""
    words = model.get("skiplist_words")
    return list(string.punctuation) if words is None else words


def register(tokenizer: Any, prefixes: tuple[str, ...]) -> None:
    """Make a prefix that the tokenizer has as a token, but finds in no text, a token that it finds.

    PyLate puts such a token in by its number. One that is not in the vocabulary stays a text.
    """
    known = set(tokenizer.get_vocab()) | set(tokenizer.added_tokens_encoder)
    found = []
    for text in prefixes:
        words = text.split(None, 1)
        prefix = next((one for one in (text, *words[:1]) if one in known), None) if words else None
        if prefix is not None and tokenizer.tokenize(prefix) != [prefix]:
            found.append(prefix)
    if found:
        made = [AddedToken(one, normalized=False, special=True) for one in found]
        tokenizer.add_special_tokens({"additional_special_tokens": made})
