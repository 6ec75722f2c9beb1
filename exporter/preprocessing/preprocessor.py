"""What a file's method `preprocess` computes: a TorchScript function, and the constants that it is called with.

The same function is called in Python to compare it with the folder's processor before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.format.manifest import Preprocessing

# What TorchScript can take as a literal, and tensors, which become attributes of the module. No empty lists:
# TorchScript would take them for lists of tensors.
Constant = int | float | bool | str | Sequence[int] | Sequence[float] | torch.Tensor


@dataclass(frozen=True)
class Preprocessor:
    """`function` takes the picture or sound, then `constants` in order, and returns a tuple of tensors.

    These are the model's inputs that `info` names, for one row, with the batch axis. The function uses torch alone; it
    and those of its Python module that it calls become methods of the file, named `em_…`, which operators.def lists.
    """

    function: Callable[..., Any]
    constants: tuple[Constant, ...]
    info: Preprocessing

    def __call__(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs by name."""
        return dict(zip(self.info.inputs, self.function(value, *self.constants), strict=True))
