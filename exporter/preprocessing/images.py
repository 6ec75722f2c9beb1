"""Make a model's inputs of a picture: compiled to TorchScript.

Sizes follow the rules of transformers' image processors, which round differently from rule to rule. Rescaling and
normalising make one number of each of the 256 values of a channel, so a table holds them all.
"""

from __future__ import annotations

from typing import List, Tuple  # noqa: UP035 - TorchScript knows these names alone

import torch

from exporter.preprocessing.resampling import resize_window

# Rules for the size of a resized picture, with two numbers each.
KEEP, EXACT, SHORTEST, SHORTEST_LONGEST, WITHIN, NEAREST_ASPECT, YOLOS, LONGEST = range(8)


def rounded(number: float) -> int:
    """To the nearest whole number, halves to the even one, as Python does."""
    return int(torch.round(torch.full([1], number, dtype=torch.float64)))


def resized_size(height: int, width: int, rule: List[int]) -> List[int]:  # noqa: UP006
    """The size to which a picture is resized.

    Args:
        height: of the picture,
        width: and its width.
        rule: the rule, its two numbers, and a step: sizes are rounded up to its multiples, or down if it is negative.
    """
    kind, first, second, step = rule[0], rule[1], rule[2], rule[3]
    short, long = min(height, width), max(height, width)
    size = [height, width]
    if kind == 1:  # a height and a width
        size = [first, second]
    if kind == 2:  # the shorter side; the longer one in proportion
        other = int(float(first * long) / float(short))
        size = [other, first] if width <= height else [first, other]
    if kind == 3 or kind == 6:  # the shorter side, unless the longer one would exceed a second number
        exact = float(first)
        if float(long) / float(short) * exact > float(second):
            exact = float(second) * float(short) / float(long)
        side = rounded(exact)
        # A picture whose shorter side is right keeps its size; for YOLOS, only one that is not upright.
        if short != side or (kind == 6 and width < height):
            if width < height:
                size = [int(exact * float(height) / float(width)), side]
            else:
                size = [side, int(exact * float(width) / float(height))]
    if kind == 4:  # as large as a height and a width admit
        scale = min(float(first) / float(height), float(second) / float(width))
        size = [int(float(height) * scale), int(float(width) * scale)]
    if kind == 5:  # one of a height and a width, whichever scales less; in proportion, to the nearest multiples
        down, across = float(first) / float(height), float(second) / float(width)
        scale = across if abs(1.0 - across) < abs(1.0 - down) else down
        by = float(step)
        size = [rounded(scale * float(height) / by) * step, rounded(scale * float(width) / by) * step]
    if kind == 7:  # the longer side; the shorter one in proportion, to the nearest number
        scale = float(first) / float(long)
        size = [int(float(height) * scale + 0.5), int(float(width) * scale + 0.5)]
    if step > 0:
        size = [(size[0] + step - 1) // step * step, (size[1] + step - 1) // step * step]
    if step < 0:
        size = [size[0] // -step * -step, size[1] // -step * -step]
    if min(size[0], size[1]) < 1:
        raise ValueError("the picture is too small: resized, it would have no pixels")
    return size


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
        rule: for the size, as for `resized_size`.
        kind: Pillow's number of the filter.
        adaptive: as for `resize_window`.
        crop: height and width of the part in the middle; 0 keeps all.
        upper_left: where a smaller picture cannot be in the middle exactly, whether it is nearer to the upper left.
    """
    height, width = resized_size(picture.size(0), picture.size(1), rule)
    if crop[0] == 0:
        if height * width > 67108864:
            raise ValueError("the picture is too long: resized, it would have more than 2^26 pixels")
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


def pixels(
    picture: torch.Tensor,
    rule: List[int],  # noqa: UP006
    kind: int,
    adaptive: bool,
    crop: List[int],  # noqa: UP006
    upper_left: bool,
    table: torch.Tensor,
    reverse: bool,
) -> torch.Tensor:
    """[1, channels, height, width] of float32.

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
    return torch.stack(planes).unsqueeze(0)


def padded(tensor: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """With zeros below and to the right up to a size; 0 leaves it as it is."""
    if height == 0:
        return tensor
    if tensor.size(-2) > height or tensor.size(-1) > width:
        raise ValueError("the resized picture is larger than the size to which it is padded")
    sizes = list(tensor.size())
    sizes[-2], sizes[-1] = height, width
    whole = torch.zeros(sizes, dtype=tensor.dtype)
    whole.narrow(-2, 0, tensor.size(-2)).narrow(-1, 0, tensor.size(-1)).copy_(tensor)
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
    pad: List[int],  # noqa: UP006
) -> Tuple[torch.Tensor]:  # noqa: UP006
    """`pixel_values` of one picture, as `pixels` makes them, padded to a height and a width."""
    made = pixels(picture, rule, kind, adaptive, crop, upper_left, table, reverse)
    return (padded(made, pad[0], pad[1]),)


def masked_image_inputs(
    picture: torch.Tensor,
    rule: List[int],  # noqa: UP006
    kind: int,
    adaptive: bool,
    crop: List[int],  # noqa: UP006
    upper_left: bool,
    table: torch.Tensor,
    reverse: bool,
    pad: List[int],  # noqa: UP006
) -> Tuple[torch.Tensor, torch.Tensor]:  # noqa: UP006
    """The same, and `pixel_mask`, 1 where the picture is."""
    made = pixels(picture, rule, kind, adaptive, crop, upper_left, table, reverse)
    mask = torch.ones([1, made.size(2), made.size(3)], dtype=torch.int64)
    return padded(made, pad[0], pad[1]), padded(mask, pad[0], pad[1])
