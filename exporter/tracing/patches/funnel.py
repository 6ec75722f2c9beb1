"""Funnel Transformer: tables of relative positions built from Python lists → from traced sizes.

The original walks over lists of the example's positions to find how far apart the queries and keys of each block can
be: a trace keeps the tables of its example's length. Such a list is the position of the class token, if that is
separate, and an even progression after it, so its ends and its length follow from the sequence length by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from exporter.tracing.patches.replacement import modules_named, replace

WHAT = "Funnel's tables of relative positions from the length of the input: the original builds them in Python"


def repair(model: torch.nn.Module) -> bool:
    """Replace the tables of the encoder and of the decoder."""
    structures = _structures(model)
    for structure in structures:
        replace(structure, "get_position_embeds", _position_embeds)
    return bool(structures)


def _structures(model: torch.nn.Module) -> list[torch.nn.Module]:
    found: list[Any] = modules_named(model, "FunnelAttentionStructure")
    return [structure for structure in found if structure.config.attention_type == "relative_shift"]


@dataclass(frozen=True)
class _Positions:
    """Positions of one block: the first, and an even progression after it. Sizes are traced integers."""

    first: Any
    second: Any
    step: int
    count: Any

    @property
    def last(self) -> Any:
        return self.second + self.step * (self.count - 2)

    def pooled(self, block: int, separate: bool, truncated: bool) -> _Positions:
        """Every second position; the class token stays if it is separate."""
        if not separate:
            return _Positions(self.first, self.first + 2 * self.step, 2 * self.step, (self.count + 1) // 2)
        rest = self.count - 2 if truncated else self.count - 1
        return _Positions(1 - 2**block, self.second, 2 * self.step, 1 + (rest + 1) // 2)


def _position_embeds(self: Any, seq_len: Any, dtype: torch.dtype, _device: torch.device) -> list[list[Any]]:
    """For each block the tables [relative positions, hidden] without and with pooling of the queries."""
    half = self.config.d_model // 2
    frequencies = 1 / (10000 ** (torch.arange(0, half, 1.0).to(dtype) / half))

    def table(queries: _Positions, keys: _Positions, step: int, shift: int) -> torch.Tensor:
        furthest = queries.first - keys.first + shift * queries.count * step
        nearest = queries.first - keys.last
        angles = torch.arange(furthest, nearest - 1, -step).to(dtype)[:, None] * frequencies[None]
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)

    positions = _Positions(0, 1, 1, seq_len)
    tables: list[list[Any]] = []
    for block in range(self.config.num_blocks):
        pooling = None
        if block:
            before = positions
            positions = before.pooled(block, self.config.separate_cls, self.config.truncate_seq)
            pooling = table(positions, before, 2 ** (block - 1), 2)
        tables.append([table(positions, positions, 2**block, 1), pooling])
    return tables
