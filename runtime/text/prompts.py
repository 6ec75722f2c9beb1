"""Prompts whose tokens are left out when the model pools a text's tokens to one vector."""

from __future__ import annotations

import torch

from runtime.text.encoder import TextEncoder
from runtime.text.tokenizer import InvalidText

# The input of models that do so.
POOLING_MASK = "pooling_mask"


def prompt_length(encoder: TextEncoder, prompt: str) -> int:
    """By the rule of sentence-transformers: the tokens of the prompt alone, without a special one that ends them.

    Args:
        encoder: the artifact's.
        prompt: cut like a text.

    Raises:
        InputTextError: it cannot be tokenised.
    """
    if not prompt:
        return 0
    (found,) = encoder.tokens([prompt], truncate=True)
    if isinstance(found, InvalidText):
        raise found.error("the prompt")
    ids = found.ids
    return len(ids) - int(bool(ids) and ids[-1] in encoder.special)


def pooling_mask(mask: torch.Tensor, prompt: int) -> torch.Tensor:
    """1 at the tokens that are pooled, int64 [rows, tokens].

    Args:
        mask: int64 [rows, tokens], 1 at real tokens, padded on either side.
        prompt: how many tokens at each row's beginning are the prompt's.
    """
    return mask * (mask.cumsum(dim=1) > prompt)
