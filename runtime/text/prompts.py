"""Prompts: the text before each text to embed, and its tokens, which some models leave out of the vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from runtime.errors import InputTextError
from runtime.printing import shown
from runtime.text.encoder import TextEncoder
from runtime.text.tokenizer import InvalidText

# The input that models with such a pooling have.
POOLING_MASK = "pooling_mask"


def named_prompt(prompts: Mapping[str, str], name: Any) -> str:
    """The model's prompt of that name.

    Raises:
        InputTextError: it has none; the error lists the names.
    """
    if not isinstance(name, str) or name not in prompts:
        known = ", ".join(prompts) or "(none)"
        raise InputTextError(f"prompt_name is {shown(name)}", f"one of the model's prompts: {known}")
    return prompts[name]


def with_prompt(texts: Sequence[str], prompt: str) -> Sequence[str]:
    """The texts with a prompt before each; what is no list of texts is returned as it is, to be refused later."""
    if not prompt or not isinstance(texts, (list, tuple)):
        return texts
    # An empty text gets no prompt, so that it is still refused.
    return [prompt + text if isinstance(text, str) and text.strip() else text for text in texts]


def prompt_length(encoder: TextEncoder, prompt: str) -> int:
    """The number of tokens to leave out, by the rule of sentence-transformers.

    These are the tokens of the prompt alone, except a special token at its end.

    Args:
        encoder: the artifact's encoder.
        prompt: the prompt; if it is longer than the model admits, it is truncated.

    Raises:
        InputTextError: the prompt cannot be tokenised.
    """
    if not prompt:
        return 0
    (found,) = encoder.tokens([prompt], truncate=True)
    if isinstance(found, InvalidText):
        raise found.error("the prompt")
    ids = found.ids
    return len(ids) - int(bool(ids) and ids[-1] in encoder.special)


def pooling_mask(mask: torch.Tensor, prompt: int) -> torch.Tensor:
    """The mask with 1 at the tokens to pool, int64 [rows, tokens].

    Args:
        mask: the attention mask, int64 [rows, tokens], padded on either side.
        prompt: the number of tokens at each row's beginning to leave out.
    """
    return mask * (mask.cumsum(dim=1) > prompt)
