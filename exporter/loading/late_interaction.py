"""Queries and documents of a model of token vectors (ColBERT): prompts, lengths, added and left-out tokens, as ids."""

from __future__ import annotations

import dataclasses
from typing import Any

from exporter.loading import known_settings
from exporter.loading.sentence_modules import Modules
from exporter.loading.settings import Settings
from exporter.loading.text_settings import SideSettings
from exporter.loading.tokenizer import TokenizerPart
from runtime.errors import CheckpointError
from runtime.format.manifest import Expansion, LateInteraction, TextSide

_SIDES = ("query", "document")


def read_late_interaction(
    settings: Settings, modules: Modules, sides: SideSettings, tokenizer: TokenizerPart, longest: int | None
) -> LateInteraction | None:
    """What the manifest says about queries and documents; None without a tokenizer.

    Args:
        settings: of the whole folder.
        modules: supported ones.
        sides: what the folder says.
        tokenizer: the model's.
        longest: the number of tokens that the model's positions admit.

    Raises:
        CheckpointError: a setting that is not supported.
    """
    mask = next((module for module in modules.listed if module.kind == "MultiVectorMask"), None)
    found = {} if mask is None else settings.read(mask.config, known_settings.MULTI_VECTOR_MASK) or {}
    if sides.skipped_words is not None:
        found = {"skiplist_words": sides.skipped_words}
    elif mask is None and sides.expansion is not None:
        raise CheckpointError(
            f"{settings.files.id} lengthens queries (query_expansion)",
            "the module MultiVectorMask, which counts what was added",
            "correct modules.json",
        )
    if tokenizer.info is None:
        return None
    usual = tokenizer.info.max_length

    def length(own: int | None) -> int:
        # The library's tokenizer cuts at a length of its own, even if that is larger than the usual one.
        return usual if own is None else min(own, longest or own)

    query = TextSide(sides.query_prompt, length(sides.query_length))
    if sides.expansion is not None:
        query = _expanded(settings, query, sides.expansion, tokenizer)
    document = TextSide(sides.document_prompt, length(sides.document_length))
    tasks, skipped = _skipped(settings, "" if mask is None else mask.config, found, tokenizer)
    return LateInteraction(
        dataclasses.replace(query, skipped_ids=skipped if "query" in tasks else ()),
        dataclasses.replace(document, skipped_ids=skipped if "document" in tasks else ()),
    )


def _expanded(settings: Settings, side: TextSide, expansion: dict[str, Any], part: TokenizerPart) -> TextSide:
    tokenizer = part.fast
    if tokenizer.padding_side != "right":
        raise CheckpointError(
            f"{settings.files.id} lengthens queries (query_expansion), with a tokenizer that pads on the left",
            "a tokenizer that pads on the right",
            "this model is not supported",
        )
    named = expansion["token"]
    number = tokenizer.mask_token_id if named is None else tokenizer.get_vocab().get(named)
    if number is None and named is None:
        number = tokenizer.eos_token_id
    if number is None:
        raise CheckpointError(
            f"{settings.files.id} lengthens queries by the token {named or '[MASK]'!r}"[:200],
            "a token that its tokenizer has",
            "correct query_expansion",
        )
    length = expansion["length"]
    longest = length if expansion["strategy"] == "fixed" else max(side.max_length, length)
    return dataclasses.replace(side, max_length=longest, expansion=Expansion(int(number), length, expansion["attend"]))


def _skipped(
    settings: Settings, place: str, found: dict[str, Any], part: TokenizerPart
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Of which texts tokens are left out, and their ids; words that are no tokens are none for the library either."""
    words, tasks = found.get("skiplist_words") or [], found.get("skiplist_tasks")
    tasks = [tasks] if isinstance(tasks, str) else ["document"] if tasks is None else tasks
    for key, value in (("skiplist_words", words), ("skiplist_tasks", tasks)):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise settings.refusal(place, key, value, "it is not a list of texts")
    if not set(tasks) <= set(_SIDES):
        raise settings.refusal(place, "skiplist_tasks", tasks, f"known are {', '.join(_SIDES)}")
    tokenizer = part.fast
    numbers = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
    unknown = tokenizer.unk_token_id
    ids = {n for word, n in numbers.items() if n is not None and (n != unknown or word == tokenizer.unk_token)}
    return tuple(tasks), tuple(sorted(ids))
