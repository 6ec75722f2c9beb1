"""The id that fills up the shorter texts of a batch, where the model looks for it.

In: a classifier, its tokenizer. Out: the model, its configuration completed. Refuses an id that also ends texts.

Classifiers made of a decoder answer at the last token that is not of this id; without one in config.json they take one
text at a time.
"""

from __future__ import annotations

from typing import Any

from exporter.loading.tokenizer import TokenizerPart
from runtime.errors import CheckpointError


def complete_padding(place: str, config: Any, tokenizer: TokenizerPart) -> str:
    """Take the id from the tokenizer where config.json has none; says so, in words.

    Args:
        place: the model, for messages.
        config: of the loaded model; changed in place.
        tokenizer: the model's.

    Raises:
        CheckpointError: the tokenizer fills up with a token that also stands in texts.
    """
    text, fast = config.get_text_config(), tokenizer.fast
    if getattr(text, "pad_token_id", None) is not None or fast is None or fast.pad_token_id is None:
        return ""
    if fast.pad_token_id in fast("a").input_ids:
        raise CheckpointError(
            f"config.json of {place} names no pad_token_id, and the tokenizer fills up with {fast.pad_token}, which "
            "also stands in every text",
            "the id that shorter texts of a batch are filled up with",
            "add pad_token_id to config.json, of a token that texts do not have",
        )
    text.pad_token_id = fast.pad_token_id
    return f"pad_token_id {fast.pad_token_id} is the tokenizer's: config.json names none"
