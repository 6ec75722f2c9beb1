"""Attention by an operator of this project: one call, whether rows are padded or follow each other.

The functions are compiled to TorchScript, which does not know `Tensor | None`.
"""

from __future__ import annotations

from typing import List, Optional  # noqa: UP035 - TorchScript knows these names alone

import torch

from exporter.backends.onednn.attend import Attention, attention, place_attention
from exporter.backends.onednn.padding import place_ragged
from exporter.tracing.cached_attention import WIDEST
from exporter.tracing.graphs.graph import Shapes
from exporter.tracing.graphs.graph_functions import call
from exporter.tracing.graphs.ir import Node, Value, graph_of
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

ATTENTION = "em_native::attention"
# Not placed in the graph: the model is traced with it (exporter/tracing/cached_attention.py).
ATTEND_CACHED = "em_native::attend_cached"


def place_native_attention(module: ScriptModule, sizes: Shapes, coarse: bool) -> int:
    """Replace explicit attention in the module's graph; returns the number of attentions.

    `coarse`: queries, keys and values of fp32 may be rounded to bf16 for the products. Heads that are too wide for the
    operator get PyTorch's operators, as with oneDNN.
    """
    graph = graph_of(module)
    found = [
        (node, parts)
        for node in graph.nodes()
        if (parts := attention(node, sizes)) is not None and parts.width <= WIDEST
    ]
    for node, (query, keys, values, mask, scale, *_) in found:
        graph.setInsertPoint(node)
        added = graph.insertConstant(None) if mask is None else mask
        settings = map(graph.insertConstant, (scale, coarse))
        output = call(module, node, native_attend, [query, keys, values, added, *settings])
        node.output().replaceAllUsesWith(output)
    eliminate_dead_code(graph)
    return len(found) + place_attention(module, sizes)


class NativeRagged:
    """Places attention over rows that follow each other, for `exporter.backends.onednn.padding`.

    Whether the mask hides padding alone is found out once for each mask, not at each attention.
    """

    def __init__(self, coarse: bool) -> None:
        self._coarse = coarse
        self._offsets: dict[str, Value] = {}

    def __call__(
        self, module: ScriptModule, node: Node, parts: Attention, kept: Value, back: Value, lengths: Value, real: Value
    ) -> Value:
        """The output of the attention, in front of the node."""
        if parts.width > WIDEST:
            return place_ragged(module, node, parts, kept, back, lengths, real)
        query, keys, values, mask, scale, *_ = parts
        assert mask is not None  # the region has no others
        graph = graph_of(module)
        if mask.debugName() not in self._offsets:
            self._offsets[mask.debugName()] = call(module, node, segment_offsets, [mask, lengths, real])
        factor, coarse = map(graph.insertConstant, (scale, self._coarse))
        offsets = self._offsets[mask.debugName()]
        return call(module, node, native_attend_ragged, [query, keys, values, mask, factor, coarse, lengths, offsets])


def native_attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: float,
    coarse: bool,
) -> torch.Tensor:
    """Attention, [rows, heads, queries, width].

    Args:
        query: [rows, heads, queries, width].
        keys: [rows, heads, width, keys].
        values: [rows, heads, keys, width].
        mask: added to the scores, [rows or 1, heads or 1, queries or 1, keys], or None.
        scale: the factor of the scores.
        coarse: numbers of fp32 may be rounded to bf16 for the products.
    """
    found: torch.Tensor = torch.ops.em_native.attention(
        query, keys.transpose(2, 3), values, None, mask, scale, False, 0, coarse
    )
    return found


def segment_offsets(
    mask: torch.Tensor,
    lengths: List[int],  # noqa: UP006
    real: torch.Tensor,
) -> torch.Tensor:
    """Where each row begins among the kept tokens, and where the last one ends.

    Empty if all positions are kept, or if the mask does more than hide padding: it is not 0 at a real token.

    Args:
        mask: added to the scores of the padded batch, of 4 axes.
        lengths: of the rows, or empty.
        real: [rows, tokens], not 0 where a token is real.
    """
    offsets = torch.zeros([0], dtype=torch.int64)
    if len(lengths) > 0 and mask.size(1) == 1 and mask.size(2) == 1 and mask.size(3) == real.size(1):
        hidden = (mask.flatten(0, 2) != 0).logical_and(real != 0)
        if not bool(hidden.any()):
            offsets = torch.zeros([len(lengths) + 1], dtype=torch.int64)
            end = 0
            for row in range(len(lengths)):
                end += lengths[row]
                offsets.narrow(0, row + 1, 1).fill_(end)
    return offsets


def native_attend_ragged(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    coarse: bool,
    lengths: List[int],  # noqa: UP006
    offsets: torch.Tensor,
) -> torch.Tensor:
    """Attention within each row of the batch; the first six arguments as for `native_attend`.

    If there are lengths, `query`, `keys` and `values` are a single row with the tokens of all; `offsets` are from
    `segment_offsets`.
    """
    if len(lengths) == 0:
        return native_attend(query, keys, values, mask, scale, coarse)
    if offsets.numel() > 0:
        found: torch.Tensor = torch.ops.em_native.attention(
            query, keys.transpose(2, 3), values, offsets, None, scale, False, 0, coarse
        )
        return found
    # The tokens that fill up the last step belong to no row: they stay zero, and finite in every layer.
    output = torch.zeros(
        [1, query.size(2), query.size(1), values.size(3)], dtype=values.dtype, device=values.device
    ).transpose(1, 2)
    start = 0
    for row in range(len(lengths)):
        length = lengths[row]
        if length > 0:
            end = start + length
            row_mask = mask[:, :, :, :length]
            if mask.size(2) != 1:
                row_mask = row_mask[:, :, :length]
            if mask.size(0) != 1:
                row_mask = row_mask[row : row + 1]
            q, k, v = query[:, :, start:end], keys[:, :, :, start:end], values[:, :, start:end]
            output[:, :, start:end].copy_(native_attend(q, k, v, row_mask, scale, coarse))
            start = end
    return output
