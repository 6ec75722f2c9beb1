"""Make a model's inputs of a picture: compiled to TorchScript.

Sizes follow the rules of transformers' image processors, which round differently from rule to rule. Rescaling and
normalising make one number of each of the 256 values of a channel, so a table holds them all.
"""

from __future__ import annotations

from typing import List, Tuple  # noqa: UP035 - TorchScript knows these names alone

import torch

from exporter.preprocessing.resampling import resize_window

# Rules for the size of a resized picture, with two numbers each.
KEEP, EXACT, SHORTEST, SHORTEST_LONGEST, WITHIN = range(5)


def resized_size(height: int, width: int, rule: int, first: int, second: int) -> List[int]:  # noqa: UP006
    """The size to which a picture is resized."""
    if rule == 1:  # a height and a width
        return [first, second]
    short, long = min(height, width), max(height, width)
    if rule == 2:  # the shorter side; the longer one in proportion
        other = int(float(first * long) / float(short))
        if width <= height:
            return [other, first]
        return [first, other]
    if rule == 3:  # the shorter side, unless the longer one exceeded a second number
        size = first
        exact = float(first)
        if float(long) / float(short) * float(first) > float(second):
            exact = float(second) * float(short) / float(long)
            size = int(torch.round(torch.full([1], exact, dtype=torch.float64)))
        if short == size:
            return [height, width]
        if width < height:
            return [int(exact * float(height) / float(width)), size]
        return [size, int(exact * float(width) / float(height))]
    if rule == 4:  # as large as a height and a width admit
        scale = min(float(first) / float(height), float(second) / float(width))
        return [int(float(height) * scale), int(float(width) * scale)]
    return [height, width]


def resized_and_cropped(
    picture: torch.Tensor,
    rule: List[int],  # noqa: UP006
    kind: int,
    adaptive: bool,
    crop: List[int],  # noqa: UP006
    upper_left: bool,
) -> torch.Tensor:
    """The middle of the resized picture.

    Args:
        picture: [height, width, channels] of uint8.
        rule: for the size, with its two numbers.
        kind: Pillow's number of the filter.
        adaptive: as for `resize_window`.
        crop: height and width of the part in the middle; 0 keeps all.
        upper_left: where a smaller picture cannot be in the middle exactly, whether it is nearer to the upper left.
    """
    size = resized_size(picture.size(0), picture.size(1), rule[0], rule[1], rule[2])
    height, width = max(size[0], 1), max(size[1], 1)
    if crop[0] == 0:
        return resize_window(picture, height, width, [0, 0, height, width], kind, adaptive)
    rows, columns = min(height, crop[0]), min(width, crop[1])
    window = [(height - rows) // 2, (width - columns) // 2, rows, columns]
    part = resize_window(picture, height, width, window, kind, adaptive)
    if rows == crop[0] and columns == crop[1]:
        return part
    above, before = crop[0] - rows, crop[1] - columns
    if upper_left:
        above, before = above // 2, before // 2
    else:
        above, before = (above + 1) // 2, (before + 1) // 2
    whole = torch.zeros([crop[0], crop[1], picture.size(2)], dtype=torch.uint8)
    whole.narrow(0, above, rows).narrow(1, before, columns).copy_(part)
    return whole


def image_inputs(
    picture: torch.Tensor,
    rule: List[int],  # noqa: UP006
    kind: int,
    adaptive: bool,
    crop: List[int],  # noqa: UP006
    upper_left: bool,
    table: torch.Tensor,
    reverse: bool,
) -> Tuple[torch.Tensor]:  # noqa: UP006
    """`pixel_values` of one picture, [1, channels, height, width].

    Args:
        picture: [height, width, channels] of uint8.
        rule: as for `resized_and_cropped`, like the next four.
        kind: as above.
        adaptive: as above.
        crop: as above.
        upper_left: as above.
        table: [channels, 256]: what becomes of each value.
        reverse: whether the channels are put in reverse order, before the table.
    """
    part = resized_and_cropped(picture, rule, kind, adaptive, crop, upper_left)
    if reverse:
        part = part.flip([2])
    planes = []
    for channel in range(table.size(0)):
        plane = part.select(2, channel)
        planes.append(table[channel].index_select(0, plane.reshape([-1]).to(torch.int32)).reshape(plane.size()))
    return (torch.stack(planes).unsqueeze(0),)
