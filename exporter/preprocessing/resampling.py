"""Resize pictures as Pillow does: compiled to TorchScript.

Pillow resizes along the width, rounds to whole numbers, then along the height, and rounds again. It weighs with whole
numbers of 22 bits. The same arithmetic gives the same pixels, with operators that check their arguments and that
every release of torch has.
"""

from __future__ import annotations

from typing import List  # noqa: UP035 - TorchScript knows this name alone

import torch

# Pillow's numbers of its filters.
NEAREST, LANCZOS, BILINEAR, BICUBIC, BOX, HAMMING = range(6)


def filter_weights(x: torch.Tensor, kind: int) -> torch.Tensor:
    """A filter's value at each distance from its centre, in units of the input's or the output's pixels."""
    y = x.abs()
    if kind == 1:  # Lanczos, of three lobes
        at = torch.where(y == 0.0, torch.ones_like(y), y * 3.141592653589793)
        lobes = torch.sin(at) / at * (torch.sin(at / 3.0) / (at / 3.0))
        return torch.where(y == 0.0, torch.ones_like(y), torch.where(y < 3.0, lobes, torch.zeros_like(y)))
    if kind == 3:  # bicubic, a = -0.5
        near = ((1.5 * y) - 2.5) * y * y + 1.0
        far = (((y - 5.0) * y + 8.0) * y - 4.0) * -0.5
        return torch.where(y < 1.0, near, torch.where(y < 2.0, far, torch.zeros_like(y)))
    if kind == 4:  # box
        return torch.where((x > -0.5).logical_and(x <= 0.5), torch.ones_like(x), torch.zeros_like(x))
    if kind == 5:  # Hamming
        at = torch.where(y == 0.0, torch.ones_like(y), y * 3.141592653589793)
        bell = torch.sin(at) / at * (torch.cos(at) * 0.46 + 0.54)
        return torch.where(y == 0.0, torch.ones_like(y), torch.where(y < 1.0, bell, torch.zeros_like(y)))
    return torch.clamp(1.0 - y, min=0.0)  # bilinear


def resample_rows(rows: torch.Tensor, size: int, first: int, count: int, kind: int) -> torch.Tensor:
    """Some rows of a picture that is resized along its first axis.

    Args:
        rows: [rows, numbers] of uint8.
        size: the number of rows of the whole result.
        first: the first of these that is wanted,
        count: and how many.
        kind: Pillow's number of the filter.
    """
    there = rows.size(0)
    if there == size:
        return rows.narrow(0, first, count)
    scale = float(there) / float(size)
    if kind == 0:  # the nearest; Pillow adds up the step
        steps = torch.full([first + count], scale, dtype=torch.float64)
        steps.narrow(0, 0, 1).fill_(scale * 0.5)
        places = steps.cumsum(0).to(torch.int64).clamp(max=there - 1)
        return rows.index_select(0, places.narrow(0, first, count))
    stretch = max(scale, 1.0)
    radius = 1.0
    if kind == 1:
        radius = 3.0
    if kind == 3:
        radius = 2.0
    if kind == 4:
        radius = 0.5
    support = radius * stretch
    centre = (torch.arange(count, dtype=torch.float64) + (float(first) + 0.5)) * scale
    low = (centre - support + 0.5).clamp(min=0.0).to(torch.int64)
    end = (centre + support + 0.5).to(torch.int64).clamp(max=there)
    taps = int(support) * 2 + 3
    places = low.unsqueeze(0) + torch.arange(taps).unsqueeze(1)
    weights = filter_weights((places - centre + 0.5) * (1.0 / stretch), kind)
    weights = torch.where(places < end, weights, torch.zeros_like(weights))
    total = weights.sum(0)
    weights = weights / torch.where(total == 0.0, torch.ones_like(total), total) * 4194304.0
    whole = torch.where(weights < 0.0, weights - 0.5, weights + 0.5).to(torch.int32)
    places = places.clamp(max=there - 1)
    sums = torch.full([count, rows.size(1)], 2097152, dtype=torch.int32)
    for tap in range(taps):
        sums += rows.index_select(0, places[tap]) * whole[tap].unsqueeze(1)
    return (sums >> 22).clamp(0, 255).to(torch.uint8)


def resize_window(
    picture: torch.Tensor,
    height: int,
    width: int,
    window: List[int],  # noqa: UP006
    kind: int,
    adaptive: bool,
) -> torch.Tensor:
    """A part of the resized picture; what lies outside it is not computed.

    Args:
        picture: [height, width, channels] of uint8.
        height: of the whole resized picture,
        width: and its width.
        window: the part's first row and first column, its number of rows and of columns.
        kind: Pillow's number of the filter.
        adaptive: along the height first where that leaves fewer pixels to Pillow 13; else always along the width first.
    """
    there, across, channels = picture.size(0), picture.size(1), picture.size(2)
    top, left, rows, columns = window[0], window[1], window[2], window[3]
    if adaptive and height < there and (width - across) * 2 > height - there:
        flat = resample_rows(picture.reshape([there, across * channels]), height, top, rows, kind)
        turned = flat.reshape([rows, across, channels]).transpose(0, 1).reshape([across, rows * channels])
        turned = resample_rows(turned, width, left, columns, kind)
        return turned.reshape([columns, rows, channels]).transpose(0, 1)
    turned = picture.transpose(0, 1).reshape([across, there * channels])
    turned = resample_rows(turned, width, left, columns, kind)
    flat = turned.reshape([columns, there, channels]).transpose(0, 1).reshape([there, columns * channels])
    return resample_rows(flat, height, top, rows, kind).reshape([rows, columns, channels])
