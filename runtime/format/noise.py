"""Large inputs of golden cases as recipes: seeded noise, or ones, with zeros behind the end of shorter rows.

`runtime.format.manifest` specifies the numbers, bit for bit, so that every reader makes the same tensors; the C++
library does so in `noise.h`. The generator is SplitMix64, which needs integers alone: torch's own may change between
releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# A reader refuses recipes of more numbers: 512 MB of float32.
MOST_NUMBERS = 2**27
_MOST_AXES = 8
_SEEDS = 2**62

# SplitMix64's constants as signed 64-bit integers; torch's products wrap as unsigned ones do.
_STEP, _FIRST, _SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
# How many at once: they stay in the processor's cache, and are so few that torch starts no threads for them.
_CHUNK = 2**15


@dataclass(frozen=True)
class Recipe:
    """How to make a tensor of `shape`.

    With a `seed` it holds noise in float32, on squares of `block` pixels along the last two axes unless `block` is 0;
    without one, int64 ones. Where there are `lengths`, row i is 0 along `axis` from `lengths[i]` on.
    """

    shape: tuple[int, ...]
    seed: int | None = None
    block: int = 0
    axis: int = 0
    lengths: tuple[int, ...] = ()

    @property
    def side(self) -> str:
        """Its place in the names of golden.safetensors."""
        return "ones" if self.seed is None else "noise"

    def encode(self) -> torch.Tensor:
        """As it is stored."""
        head = (self.seed or 0, self.block, self.axis, len(self.shape))
        return torch.tensor([*head, *self.shape, *self.lengths], dtype=torch.int64)

    def make(self) -> torch.Tensor:
        """The tensor."""
        tensor = torch.ones(self.shape, dtype=torch.int64) if self.seed is None else _uniform(self.seed, self.shape, 4)
        if self.seed is not None and self.block:
            height, width = self.shape[-2:]
            rows, columns = -(-height // self.block), -(-width // self.block)
            coarse = _uniform(self.seed + 1, (*self.shape[:-2], rows, columns), 8)
            for axis, size in ((-2, height), (-1, width)):
                # Not repeated and cut: with a large block that would take any amount of memory.
                coarse = coarse.index_select(axis, torch.arange(size) // self.block)
            tensor += coarse
        for row, length in enumerate(self.lengths):
            tensor[row].narrow(self.axis - 1, length, self.shape[self.axis] - length).zero_()
        return tensor


def decode(side: str, stored: torch.Tensor) -> Recipe:
    """The recipe that is stored as a tensor.

    Raises:
        ValueError: it describes no tensor, or one that is too large.
    """
    numbers: list[int] = stored.tolist() if stored.dtype == torch.int64 and stored.dim() == 1 else []
    if len(numbers) < 4 or not 1 <= numbers[3] <= _MOST_AXES or len(numbers) < 4 + numbers[3]:
        raise ValueError("no seed, block, axis, rank and shape")
    seed, block, axis, rank = numbers[:4]
    shape, lengths = numbers[4 : 4 + rank], numbers[4 + rank :]
    size = 1
    for side_length in shape:
        size *= side_length
        if not (side_length >= 1 and size <= MOST_NUMBERS):
            raise ValueError(f"the shape {shape}")
    if not 0 <= seed < _SEEDS:
        raise ValueError(f"the seed {seed}")
    if block < 0 or (block and rank < 2):
        raise ValueError(f"blocks of {block}")
    if lengths and not (len(lengths) == shape[0] and 1 <= axis < rank and _inside(lengths, shape[axis])):
        raise ValueError(f"the lengths {lengths} along axis {axis}")
    return Recipe(tuple(shape), seed if side == "noise" else None, block, axis, tuple(lengths))


def _inside(lengths: Sequence[int], size: int) -> bool:
    return all(0 <= length <= size for length in lengths)


def _uniform(seed: int, shape: Sequence[int], width: int) -> torch.Tensor:
    """Numbers from -width/2 to width/2, each the top 20 bits of one of SplitMix64's: exact in float32."""
    tensor = torch.empty(tuple(shape), dtype=torch.float32)
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), _CHUNK):
        state = torch.arange(start + 1, min(start + _CHUNK, flat.numel()) + 1, dtype=torch.int64).mul_(_STEP).add_(seed)
        top = _shifted(_mixed(state), 44)
        flat[start : start + _CHUNK] = (top.to(torch.float32) / 2**20 - 0.5) * width
    return tensor


def _mixed(state: torch.Tensor) -> torch.Tensor:
    state = (state ^ _shifted(state, 30)).mul_(_FIRST)
    state = (state ^ _shifted(state, 27)).mul_(_SECOND)
    return state ^ _shifted(state, 31)


def _shifted(state: torch.Tensor, bits: int) -> torch.Tensor:
    """Shifted to the right as an unsigned number: torch's shift repeats the sign."""
    return (state >> bits).bitwise_and_(2 ** (64 - bits) - 1)
