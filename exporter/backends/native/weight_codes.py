"""Weights as codes of 8 or 4 bits: rounding, and the layout that the operators read.

Every row of a weight is rounded by itself, so rows of joined weights keep their codes.
"""

from __future__ import annotations

import hashlib

import torch

from exporter.backends.onednn.int8 import quantised_weight
from exporter.loading.weight_codes import Codes
from runtime.errors import BackendError

# Outputs of a panel, which the operators read together (runtime/kernels/kernels.h).
_COLUMNS = 32
_LARGEST_CODE = 15
# Ranges to try for a group, as shares of the whole one: what lies outside is cut, and the steps in it are smaller.
_SHARES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)
# Rows that are rounded at a time: the trials take several copies of them.
_ROWS = 4096


def packed(codes: Codes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Codes, scales and zeros as `em_native::linear_codes` takes them (runtime/kernels/kernels.h)."""
    if codes.zeros is None:
        return _panels(codes.codes), codes.scales, None
    whole = torch.nn.functional.pad(codes.codes, (0, -codes.codes.shape[1] % 8))
    pairs = whole[:, ::2] | whole[:, 1::2] << 4
    return _panels(pairs.view(len(pairs), -1, 4)), _panels(codes.scales), _panels(codes.zeros)


def _panels(rows: torch.Tensor) -> torch.Tensor:
    """[outputs, steps, …] → [panels, steps, columns, …]; the last panel is filled up with zeros."""
    rows = torch.cat([rows, rows.new_zeros([-len(rows) % _COLUMNS, *rows.shape[1:]])])
    panels: torch.Tensor = rows.unflatten(0, (-1, _COLUMNS)).transpose(1, 2).contiguous()
    return panels


def round_to_8_bits(weight: torch.Tensor) -> Codes:
    """The nearest codes, for a weight [outputs, inputs]."""
    return Codes(*quantised_weight(weight))


def round_to_4_bits(weight: torch.Tensor, group: int) -> Codes:
    """For each group the range, of a few, with the least squared error; the nearest codes in it.

    Raises:
        BackendError: a number is too large for a scale in fp16.
    """
    parts = [_rounded(rows, group) for rows in weight.float().split(_ROWS)]
    codes, scales, zeros = (torch.cat(each) for each in zip(*parts, strict=True))
    return Codes(codes[:, : weight.shape[1]].contiguous(), scales, zeros, group)


def _rounded(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # The last group is filled up with 0, which every range includes, and whose errors do not count.
    filled = (0, -weight.shape[1] % group)
    groups, real = (
        torch.nn.functional.pad(each, filled).unflatten(1, (-1, group))
        for each in (weight, torch.ones_like(weight[:1]))
    )
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    if not bool(((high - low) / _LARGEST_CODE <= torch.finfo(torch.float16).max).all()):
        raise BackendError("a weight of the model is too large for int4, or not finite", "weights up to 480,000")
    best: tuple[torch.Tensor, ...] = ()
    for share in _SHARES:
        scales = ((high - low) * (share / _LARGEST_CODE)).half()
        # A group of zeros, or of numbers too small for fp16: any scale, and codes of 0.
        empty = scales == 0
        scales = torch.where(empty, torch.ones_like(scales), scales)
        zeros = torch.where(empty, 0, -low * share / scales.float()).clamp(0, _LARGEST_CODE).half()
        wide_scales, wide_zeros = scales.float()[..., None], zeros.float()[..., None]
        codes = (groups / wide_scales + wide_zeros).round().clamp(0, _LARGEST_CODE)
        errors = (((codes - wide_zeros) * wide_scales - groups) * real).square().sum(2)
        found: tuple[torch.Tensor, ...] = (codes.to(torch.uint8), scales, zeros, errors)
        if best:
            better = errors < best[3]
            found = (torch.where(better[..., None], found[0], best[0]),) + tuple(
                torch.where(better, one, other) for one, other in zip(found[1:], best[1:], strict=True)
            )
        best = found
    return best[0].flatten(1), best[1], best[2]


class CodeBook:
    """Finds the codes of a weight by the numbers of its rows, in whatever order they were joined."""

    def __init__(self) -> None:
        self._weights: list[Codes] = []
        self._rows: dict[bytes, tuple[int, int]] = {}

    def add(self, codes: Codes) -> torch.Tensor:
        """Remember the codes; returns their numbers."""
        numbers = codes.numbers
        for row, name in enumerate(_names(numbers)):
            self._rows.setdefault(name, (len(self._weights), row))
        self._weights.append(codes)
        return numbers

    def find(self, weight: torch.Tensor) -> Codes | None:
        """The codes that stand for exactly these numbers; None unless all rows are known, with codes of one kind."""
        if weight.dim() != 2 or weight.dtype != torch.float32:
            return None
        places = [self._rows.get(name) for name in _names(weight)]
        runs: list[tuple[int, list[int]]] = []
        for place in places:
            if place is None:
                return None
            if not runs or runs[-1][0] != place[0]:
                runs.append((place[0], []))
            runs[-1][1].append(place[1])
        parts = [self._weights[number].rows(rows) for number, rows in runs]
        if len({(one.bits, one.group) for one in parts}) != 1:
            return None
        zeros = None if parts[0].zeros is None else torch.cat([one.zeros for one in parts if one.zeros is not None])
        return Codes(
            torch.cat([one.codes for one in parts]), torch.cat([one.scales for one in parts]), zeros, parts[0].group
        )


def _names(weight: torch.Tensor) -> list[bytes]:
    """A digest of each row."""
    rows = weight.detach().contiguous().numpy()
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
