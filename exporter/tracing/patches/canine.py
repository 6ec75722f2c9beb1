"""CANINE: local attention in a loop over blocks → one masked product.

The original cuts the characters into blocks of 128 in a Python loop: a trace keeps the number of blocks of its example.
Here characters of other blocks get a score of minus infinity. Within a block, padding keeps the large negative number
that the original adds, so that a block of padding alone gives the same output.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.tracing.patches.replacement import modules_named, replace

WHAT = "CANINE's local attention as one masked product: the number of blocks depends on the length"


def repair(model: torch.nn.Module) -> bool:
    """Replace the local attention of the character layers."""
    layers = [layer for layer in modules_named(model, "CanineAttention") if _plain_blocks(layer)]
    for layer in layers:
        replace(layer, "forward", _attend)
    return bool(layers)


def _plain_blocks(layer: Any) -> bool:
    """Whether the blocks are those of the released models: adjacent, without a special first position."""
    widths = {layer.attend_from_chunk_width, layer.attend_from_chunk_stride, layer.attend_to_chunk_width}
    first = layer.always_attend_to_first_position or layer.first_position_attends_to_all
    return bool(layer.local and widths == {layer.attend_to_chunk_stride} and not first)


def _attend(
    self: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor, *_others: Any, **_named: Any
) -> tuple[torch.Tensor]:
    """Hidden states [batch, characters, hidden] in and out; the mask [batch, characters, characters] of ones."""
    block = torch.arange(hidden_states.shape[1]) // self.attend_to_chunk_width
    scores = (1.0 - attention_mask.to(hidden_states.dtype)) * torch.finfo(hidden_states.dtype).min
    scores = scores.masked_fill(block[:, None] != block[None, :], float("-inf"))
    output = self.self(hidden_states, hidden_states, scores[:, None])[0]
    return (self.output(output, hidden_states),)
