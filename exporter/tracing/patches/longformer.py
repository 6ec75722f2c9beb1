"""Longformer, and the encoder of LED: attention in chunks → one masked product.

The original pads to a multiple of the window, cuts the sequence into overlapping chunks with strides computed in
Python, and finds the tokens of global attention with data-dependent sizes: a trace keeps all of these from its example.
Here every token attends to the tokens within half a window and to the global ones, and global tokens to all tokens with
their own projections, by masks over all pairs. Softmax runs over the same scores, so the outputs are equal; the cost
grows with the square of the length instead of with the window.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from exporter.tracing.patches.replacement import modules_named, replace

WHAT = "Longformer's attention in chunks as one masked product: the chunks depend on the length"


def repair(model: torch.nn.Module) -> bool:
    """Replace the attention of every layer and the padding to whole windows."""
    for module in modules_named(model, "LongformerModel"):
        replace(module, "_pad_to_window_size", _unpadded)
    for module in modules_named(model, "LEDEncoder"):
        replace(module, "_pad_to_window_size", _unpadded_encoder)
    layers = modules_named(model, "LongformerSelfAttention", "LEDEncoderSelfAttention")
    for layer in layers:
        replace(layer, "forward", _attend)
    return bool(layers)


def _unpadded(
    _self: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor,
    position_ids: torch.Tensor,
    inputs_embeds: torch.Tensor,
    **_others: Any,
) -> tuple[Any, ...]:
    """No padding: the mask would hide it anyway."""
    return 0, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds


def _unpadded_encoder(
    _self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, inputs_embeds: torch.Tensor, **_others: Any
) -> tuple[Any, ...]:
    """The same for LED, which has no token types."""
    return 0, input_ids, attention_mask, inputs_embeds


def _attend(
    self: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    is_index_masked: torch.Tensor,
    is_index_global_attn: torch.Tensor,
    is_global_attn: bool = False,
    **_others: Any,
) -> tuple[torch.Tensor]:
    """Hidden states [batch, sequence, hidden] in and out; masks [batch, sequence]."""
    window = self.one_sided_attn_window_size
    heads = (*hidden_states.shape[:2], self.num_heads, self.head_dim)

    def split(projection: torch.nn.Module) -> torch.Tensor:
        projected: torch.Tensor = projection(hidden_states)
        return projected.view(heads).transpose(1, 2)

    query, key, value = split(self.query) / math.sqrt(self.head_dim), split(self.key), split(self.value)
    place = torch.arange(hidden_states.shape[1])
    near = ((place[:, None] - place[None, :]).abs() <= window)[None, None]
    everywhere = is_index_global_attn[:, None, None, :]
    seen = (near & (attention_mask == 0)[:, None, None, :]) | everywhere
    output = _weighted(query, key, value, seen)
    output = output.masked_fill(is_index_masked[:, None, :, None], 0.0)
    if is_global_attn:
        query = split(self.query_global) / math.sqrt(self.head_dim)
        whole = _weighted(query, split(self.key_global), split(self.value_global), ~is_index_masked[:, None, None, :])
        output = torch.where(is_index_global_attn[:, None, :, None], whole, output)
    return (output.transpose(1, 2).reshape(hidden_states.shape),)


def _weighted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    scores = torch.matmul(query, key.transpose(-1, -2))
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    return torch.matmul(torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype), value)
