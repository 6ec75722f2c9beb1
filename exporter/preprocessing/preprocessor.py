"""What a file's method `preprocess` computes: a TorchScript function, and the constants that it is called with.

The same function is called in Python to compare it with the folder's processor before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.format.golden import Case
from runtime.format.manifest import PicturePrompts, PictureResults, Preprocessing, TensorSpec

# The name of the only input of a case of `PreprocessingPlan`.
GIVEN = "given"

# What TorchScript can take as a literal, and tensors, which become attributes of the module. No empty lists:
# TorchScript would take them for lists of tensors.
Constant = int | float | bool | str | Sequence[int] | Sequence[float] | torch.Tensor


@dataclass(frozen=True)
class Preprocessor:
    """`function` takes the picture or sound, then `constants` in order, and returns a tuple of tensors.

    These are the model's inputs that `info` names, for one row, with the batch axis. The function uses torch alone; it
    and those of its Python module that it calls become methods of the file, named `em_…`, which operators.def lists.
    If the sizes that it takes follow from those that the model takes, `fitted` gives the info for a model's inputs;
    None: no size makes inputs that the model takes.
    """

    function: Callable[..., Any]
    constants: tuple[Constant, ...]
    info: Preprocessing
    fitted: Callable[[Sequence[TensorSpec]], Preprocessing | None] | None = None

    def __call__(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs by name."""
        return dict(zip(self.info.inputs, self.function(value, *self.constants), strict=True))

    def describe(self, inputs: Sequence[TensorSpec]) -> Preprocessing | None:
        """The info for the manifest of a file with these inputs."""
        return self.info if self.fitted is None else self.fitted(inputs)


@dataclass(frozen=True)
class PreprocessingPlan:
    """What a file makes of pictures or sounds, or, in `notes`, why it does not.

    `cases` are pictures or sounds, and what the folder's own processor makes of them; the file's results may differ
    from these by `tolerance`. `results` say what becomes of the outputs for pictures, `prompts` how places in a picture
    become inputs.
    """

    preprocessor: Preprocessor | None = None
    notes: tuple[str, ...] = ()
    cases: tuple[Case, ...] = field(default=())
    tolerance: float = 0.0
    results: PictureResults | None = None
    prompts: PicturePrompts | None = None
