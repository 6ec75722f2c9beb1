"""The tensors that a file's method `decode` takes: how they are made, and what may be called with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.errors import ArtifactFailedError, InputRankError, InputSizeError, InputTypeError, InputValueError
from runtime.format.manifest import GenerationInfo

# A cache grows by doubling, from at least this many tokens.
_LEAST = 64


class Caches:
    """Keys and values of some rows, empty at first.

    Args:
        info: the manifest's section.
        rows: how many.
        length: how many tokens each row can have at first; `make_room` makes it more.
    """

    def __init__(self, info: GenerationInfo, rows: int, length: int) -> None:
        self._info = info
        self.tensors = self._new(rows, min(info.longest, max(length, _LEAST)))

    @property
    def length(self) -> int:
        """How many tokens a row can have."""
        return self.tensors[0].shape[2]

    def make_room(self, length: int) -> None:
        """Let rows have so many tokens; what they hold stays."""
        if length <= self.length:
            return
        old = self.tensors
        new = self._new(old[0].shape[0], min(self._info.longest, max(length, 2 * self.length)))
        for before, after in zip(old, new, strict=True):
            after[:, :, : before.shape[2]] = before
        self.tensors = new

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Forget the rows that are not named."""
        index = torch.tensor(list(rows), dtype=torch.int64)
        self.tensors = [tensor.index_select(0, index) for tensor in self.tensors]

    def _new(self, rows: int, length: int) -> list[torch.Tensor]:
        try:
            return [
                torch.zeros([rows, one.heads, length, one.width], dtype=getattr(torch, one.dtype))
                for one in self._info.caches
            ]
        # PyTorch's own error for memory is a RuntimeError.
        except (RuntimeError, MemoryError) as error:
            raise ArtifactFailedError(
                f"there is no memory for a cache of {rows} rows of {length} tokens",
                "",
                "give fewer prompts at once, shorter ones, or a smaller max_new_tokens",
            ) from error


def check_call(
    info: GenerationInfo,
    vocabulary: int,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    kept: torch.Tensor,
    caches: Sequence[torch.Tensor],
) -> None:
    """Check the arguments of `decode`.

    Raises:
        InputTypeError, InputRankError, InputSizeError, InputValueError: naming the first that does not fit.
    """
    named = {"input_ids": input_ids, "positions": positions, "kept": kept}
    for name, tensor in named.items():
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.int64:
            raise InputTypeError(f"{name} is no int64 tensor", "torch.int64")
        if tensor.dim() != 2:
            raise InputRankError(f"{name} has shape {list(tensor.shape)}", "[rows, tokens]")
        if not tensor.numel() or tensor.shape[0] != input_ids.shape[0]:
            raise InputSizeError(f"{name} has shape {list(tensor.shape)}", "at least one token, and rows as input_ids")
    if positions.shape != input_ids.shape:
        raise InputSizeError(f"positions has shape {list(positions.shape)}", f"{list(input_ids.shape)}, as input_ids")
    if len(caches) != len(info.caches):
        raise InputSizeError(f"{len(caches)} caches", f"{len(info.caches)}, as the manifest's generation.caches")
    length = caches[0].shape[2] if isinstance(caches[0], torch.Tensor) and caches[0].dim() == 4 else 0
    rows = input_ids.shape[0]
    dtypes = {spec.dtype: getattr(torch, spec.dtype) for spec in info.caches}
    # At every token, for two tensors a layer: compared as they are, without making lists of them.
    for number, (tensor, spec) in enumerate(zip(caches, info.caches, strict=True)):
        expected = (rows, spec.heads, length, spec.width)
        if not isinstance(tensor, torch.Tensor) or tensor.shape != expected or tensor.dtype != dtypes[spec.dtype]:
            raise InputSizeError(f"cache {number} is another tensor", f"{spec.dtype} of shape {list(expected)}")
    limits = {"input_ids": vocabulary, "positions": min(length, info.longest), "kept": input_ids.shape[1]}
    for name, most in limits.items():
        low, high = (int(found) for found in named[name].aminmax())
        if low < 0 or high >= most:
            raise InputValueError(f"{name} holds {low if low < 0 else high}", f"0 to {most - 1}")
