"""Set the padding id in the configuration of a classifier, if config.json lacks it and the tokenizer has one.

Classifiers made from a decoder read their scores at the last token that is not padding. Without a padding id they take
one text at a time.
"""

from __future__ import annotations

from typing import Any

from exporter.loading.tokenizer import TokenizerPart
from runtime.errors import CheckpointError


def complete_padding(place: str, config: Any, tokenizer: TokenizerPart) -> list[str]:
    """Take the id from the tokenizer if config.json has none; returns a note if it did.

    Args:
        place: the model, for messages.
        config: of the loaded model; changed in place.
        tokenizer: the model's.

    Raises:
        CheckpointError: the tokenizer pads with a token that also occurs in texts.
    """
    text, fast = config.get_text_config(), tokenizer.fast
    if getattr(text, "pad_token_id", None) is not None or fast is None or fast.pad_token_id is None:
        return []
    if fast.pad_token_id in fast("a").input_ids:
        raise CheckpointError(
            f"config.json of {place} has no pad_token_id, and the tokenizer pads with {fast.pad_token}, which also "
            "occurs in every text",
            "the id with which shorter texts of a batch are padded",
            "add pad_token_id to config.json: the id of a token that does not occur in texts",
        )
    text.pad_token_id = fast.pad_token_id
    return [f"pad_token_id {fast.pad_token_id} is the tokenizer's: config.json has none"]
