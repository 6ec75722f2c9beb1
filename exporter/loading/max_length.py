"""How long a sequence a model admits, in tokens."""

from __future__ import annotations

from typing import Any

import torch


def longest_sequence(model: Any) -> int | None:
    """The number of usable positions, or None if nothing limits the length.

    `max_position_embeddings` counts the rows of the position table. Models like RoBERTa count positions from
    `padding_idx + 1` on, so that many rows of their table are never used.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:  # 0 or -1: relative positions only (DeBERTa, T5)
        return None
    for name, module in model.named_modules():
        table = name.rsplit(".", 1)[-1] in ("position_embeddings", "embed_positions")
        # Quantised models have table classes of their own, with the same attributes.
        rows = getattr(module, "weight", None)
        padding = getattr(module, "padding_idx", None)
        if table and padding is not None and isinstance(rows, torch.Tensor):
            return int(rows.shape[0] - padding - 1)
    return limit
