"""The side on which a classifier's texts are padded: one on which a text in a batch has the scores that it has alone.

Decoders with a table of positions count from the first place of the row, so padding on the left shifts a text; models
that read the last place need padding on the left. The tokenizer's side is kept wherever it is right.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from exporter.loading.model_errors import FAILURES
from exporter.loading.tokenizer import TokenizerPart

_LENGTH, _PADDING = 6, 5
# Far above rounding, and far below what a shifted text changes.
_SAME = 1e-3


def choose_side(model: Any, tokenizer: TokenizerPart, vocabulary: int) -> tuple[TokenizerPart, list[str]]:
    """The tokenizer with the side on which the model can be padded, and a note if that is not its own.

    Only tokenizers that pad on the left are looked at: all models here are known to take padding on the right, unless
    their tokenizer pads on the left.
    """
    info = tokenizer.info
    if info is None or info.padding_side == "right":
        return tokenizer, []
    known = [i for i in range(vocabulary) if i != info.pad_id and i not in tokenizer.special_ids]
    if len(known) < _LENGTH:
        return tokenizer, []
    ids = torch.tensor(known[:: len(known) // _LENGTH][:_LENGTH])
    try:
        left, right = (_changes(model, ids, info.pad_id, side) for side in ("left", "right"))
    except FAILURES:
        # The model has more inputs than these; its plan says which.
        return tokenizer, []
    if left <= _SAME or right > _SAME:
        return tokenizer, []
    note = "padding on the right: on the tokenizer's left side it would change the scores of shorter texts of a batch"
    return dataclasses.replace(tokenizer, info=dataclasses.replace(info, padding_side="right")), [note]


def _changes(model: Any, ids: torch.Tensor, pad_id: int, side: str) -> float:
    """How much padding on this side changes a text's scores, relative to the largest."""
    padding, real = torch.full((_PADDING,), pad_id), torch.ones_like(ids)
    parts = (padding, ids) if side == "left" else (ids, padding)
    masks = (padding * 0, real) if side == "left" else (real, padding * 0)
    with torch.no_grad():
        alone = model(input_ids=ids[None], attention_mask=real[None]).logits.float()
        padded = model(input_ids=torch.cat(parts)[None], attention_mask=torch.cat(masks)[None]).logits.float()
    return float((padded - alone).abs().max() / alone.abs().max().clamp_min(1e-9))
