"""A linear's weight as codes of 8 or 4 bits, and the numbers that they stand for.

8 bits: one scale per output, codes from -127 to 127. 4 bits: groups of inputs, each with a scale and a zero in fp16;
a number is (code - zero) * scale. The zero need not be a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Codes:
    """A weight of codes.

    `codes` is [outputs, inputs], int8, or uint8 up to 15. `scales` is float32 [outputs], or float16 [outputs, groups]
    with `zeros` of that shape; `group` is then the number of inputs in a group, and 0 for 8 bits.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None = None
    group: int = 0

    @property
    def numbers(self) -> torch.Tensor:
        """What the codes stand for, float32 [outputs, inputs]."""
        if self.zeros is None:
            return self.codes.float() * self.scales[:, None]
        inputs = self.codes.shape[1]
        scales, zeros = (
            each.float().repeat_interleave(self.group, 1)[:, :inputs] for each in (self.scales, self.zeros)
        )
        return (self.codes.float() - zeros) * scales

    @property
    def bits(self) -> int:
        """Per code."""
        return 8 if self.zeros is None else 4

    def rows(self, chosen: Sequence[int]) -> Codes:
        """Some of the outputs."""
        zeros = None if self.zeros is None else self.zeros[chosen]
        return Codes(self.codes[chosen], self.scales[chosen], zeros, self.group)
