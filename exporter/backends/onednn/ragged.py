"""What a file computes at run time to skip padding: compiled to TorchScript.

Without padding, tokens follow each other in a single row, [1, tokens, …]. In the outputs, padded positions repeat their
row's last real token, so that searching for the best token never finds padding. A batch whose rows are not real tokens
followed by padding is computed as it is.
"""

from __future__ import annotations

from typing import List, Optional, Tuple  # noqa: UP035 - TorchScript knows these names alone

import torch

from exporter.backends.onednn.attend import attend, explicit_attention, sdpa

# Measured by benchmarks/experiments/padding.py, see docs/decisions/padding.md. The shapes at which every export is
# verified cover each branch (exporter.shapes.test_shapes.shapes_to_verify): check that when changing these numbers.

# Above this share of real tokens, skipping padding does not pay.
FULL = 0.85
# Nor for batches with fewer positions, padding included.
LEAST = 128
# Up to this row length, attention is computed on the padded batch.
SHORT = 64
# The number of tokens is rounded up to a multiple: oneDNN compiles a product for each number that it meets.
STEP = 32


def plan_padding(
    mask: torch.Tensor, full: float, least: int, step: int
) -> Tuple[torch.Tensor, torch.Tensor, List[int]]:  # noqa: UP006
    """Decide what to skip in a batch.

    Args:
        mask: [rows, tokens], not 0 where a token is real.
        full: padding is skipped up to this share of real tokens,
        least: in batches of this many positions or more.
        step: the number of kept tokens is a multiple of this.

    Returns:
        The positions of the kept tokens in the batch, row after row; empty to keep all. For each position of the batch
        the place of its token among the kept ones, for padding of its row's last token; empty if nothing is padded. The
        rows' lengths; empty to keep all.
    """
    kept = torch.zeros([0], dtype=torch.int64)
    back = torch.zeros([0], dtype=torch.int64)
    lengths: List[int] = []  # noqa: UP006
    real = mask != 0
    counts = real.sum(1)
    total = int(counts.sum())
    if total > 0 and total < mask.numel():
        places = torch.arange(mask.size(1)).unsqueeze(0)
        # Real tokens first, then padding: any other batch is computed as it is.
        if bool(torch.equal(places < counts.unsqueeze(1), real)):
            last = torch.minimum(places, (counts - 1).clamp(min=0).unsqueeze(1))
            if total > full * mask.numel() or mask.numel() < least:
                back = (last + (torch.arange(mask.size(0)) * mask.size(1)).unsqueeze(1)).flatten()
            else:
                back = (last + (counts.cumsum(0) - counts).unsqueeze(1)).clamp(max=total - 1).flatten()
                kept = real.flatten().nonzero().squeeze(1)
                missing = (step - total % step) % step
                if missing > 0:
                    kept = torch.cat([kept, kept[total - 1 :].expand([missing])])
                for row in range(mask.size(0)):
                    lengths.append(int(counts[row]))
    return kept, back, lengths


def gather_tokens(tensor: torch.Tensor, kept: torch.Tensor, mask: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    """The kept tokens of a tensor whose rows and tokens are at these axes; rows may be broadcast."""
    if kept.numel() == 0:
        return tensor
    if tensor.size(rows) != mask.size(0):
        sizes = list(tensor.size())
        sizes[rows] = mask.size(0)
        tensor = tensor.expand(sizes)
    front = tensor.movedim([rows, tokens], [0, 1])
    return front.flatten(0, 1).index_select(0, kept).unsqueeze(0).movedim([0, 1], [rows, tokens])


def scatter_tokens(
    tensor: torch.Tensor, back: torch.Tensor, mask: torch.Tensor, rows: int, tokens: int
) -> torch.Tensor:
    """Restore all positions; padded ones get their row's last token."""
    if back.numel() == 0:
        return tensor
    front = tensor.movedim([rows, tokens], [0, 1]).flatten(0, 1).index_select(0, back)
    whole: torch.Tensor = front.unflatten(0, [mask.size(0), mask.size(1)])
    return whole.movedim([0, 1], [rows, tokens])


def gather_position(tensor: torch.Tensor, back: torch.Tensor, mask: torch.Tensor, index: int) -> torch.Tensor:
    """One position of each row, as `scatter_tokens(tensor, …)[:, index]`; rows and tokens are the first axes."""
    if back.numel() == 0:
        return tensor.select(1, index)
    return tensor.flatten(0, 1).index_select(0, back.view([mask.size(0), mask.size(1)]).select(1, index))


def attend_ragged(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: float,
    few: int,
    many_bytes: int,
    short: int,
    kept: torch.Tensor,
    back: torch.Tensor,
    lengths: List[int],  # noqa: UP006
    real: torch.Tensor,
) -> torch.Tensor:
    """Attention within each row of the batch; `scale`, `few` and `many_bytes` as for `attend`.

    `mask` is added to the scores of the padded batch. `kept`, `back` and `lengths` are from `plan_padding` for the
    attention mask `real`; if there are lengths, `query`, `keys` and `values` are a single row with the tokens of all.
    Up to the length `short`, rows are padded again for the products, which costs less than a call per row.
    """
    if len(lengths) == 0:
        return attend(query, keys, values, mask, scale, few, many_bytes)
    if real.size(1) <= short:
        whole = attend(
            scatter_tokens(query, back, real, 0, 2),
            scatter_tokens(keys, back, real, 0, 3),
            scatter_tokens(values, back, real, 0, 2),
            mask,
            scale,
            few,
            many_bytes,
        )
        return gather_tokens(whole, kept, real, 0, 2)
    # The tokens that fill up the last step belong to no row: they stay zero, and finite in every layer.
    output = torch.zeros(
        [1, query.size(2), query.size(1), values.size(3)], dtype=values.dtype, device=values.device
    ).transpose(1, 2)
    start = 0
    for row in range(len(lengths)):
        length = lengths[row]
        if length > 0:
            end = start + length
            row_mask = mask
            if mask is not None:
                row_mask = mask[:, :, :, :length]
                if mask.size(2) != 1:
                    row_mask = row_mask[:, :, :length]
                if mask.size(0) != 1:
                    row_mask = row_mask[row : row + 1]
            q, k, v = query[:, :, start:end], keys[:, :, :, start:end], values[:, :, start:end]
            small = query.size(1) * length * length <= few or query.dtype == torch.float32
            if small and (mask is None or mask.dtype == query.dtype):
                row_output = sdpa(q, k, v, row_mask, scale)
            else:
                row_output = explicit_attention(q, k, v, row_mask, scale)
            output[:, :, start:end].copy_(row_output)
            start = end
    return output
