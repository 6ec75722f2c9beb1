"""Embeddings: the vector of a text or of each token, and how two vectors of texts are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from runtime.errors import InputSizeError, InputTextError, InputTypeError
from runtime.format.manifest import EmbeddingInfo, Similarity
from runtime.printing import shown
from runtime.text.batched import OneWindowTask, Outputs
from runtime.text.encoder import TextEncoder

if TYPE_CHECKING:
    from tokenizers import Encoding

# Of [m, size] and [n, size] to [m, n].
SIMILARITIES: dict[Similarity, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cosine": lambda a, b: torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -torch.cdist(a, b, p=2.0),
    "manhattan": lambda a, b: -torch.cdist(a, b, p=1.0),
}


class EmbeddingTask(OneWindowTask):
    """Return one output, the embedding.

    Args:
        encoder: the artifact's encoder.
        name: the output's name.
        truncate: cut texts that are too long.
        dimensions: how many numbers of a text's vector to keep; None: all.
        normalized: whether a vector that is cut is given length 1 again.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        name: str,
        truncate: bool,
        dimensions: int | None = None,
        normalized: bool = False,
    ) -> None:
        super().__init__(encoder, truncate)
        self._name = name
        self._dimensions = dimensions
        self._normalized = normalized

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> torch.Tensor:
        """The embedding of the text, or of each token."""
        vector = outputs[self._name]
        if self._dimensions is None:
            return vector
        kept = vector[: self._dimensions]
        # A copy, so that the whole vector does not stay in memory.
        return torch.nn.functional.normalize(kept, dim=0) if self._normalized else kept.clone()


def check_dimensions(dimensions: Any, size: int | None) -> None:
    """Check that a vector of `size` numbers can be cut to `dimensions`.

    Raises:
        InputTextError: it cannot.
    """
    if type(dimensions) is not int or dimensions < 1 or (size is not None and dimensions > size):
        most = "" if size is None else f" to {size}, the size of the model's vectors"
        raise InputTextError(f"dimensions is {shown(dimensions)}", f"a whole number from 1{most}")


def similarity(info: EmbeddingInfo, a: Any, b: Any) -> torch.Tensor:
    """Each vector of `a` compared with each of `b`: float32 [number in a, number in b].

    Args:
        info: the artifact's, which says how.
        a: a tensor [number, size] or [size], or a list of vectors.
        b: the same.

    Raises:
        InputTypeError: one is something else.
        InputSizeError: the vectors have different sizes.
    """
    first, second = _vectors("a", a), _vectors("b", b)
    if first.shape[1] != second.shape[1]:
        raise InputSizeError(
            f"a has vectors of {first.shape[1]} numbers, b of {second.shape[1]}", "vectors of the same size"
        )
    return SIMILARITIES[info.similarity](first, second)


def _vectors(name: str, value: Any) -> torch.Tensor:
    try:
        tensors = isinstance(value, (list, tuple)) and value and all(isinstance(one, torch.Tensor) for one in value)
        made = torch.stack(list(value)) if tensors else torch.as_tensor(value)
        made = made.to(torch.float32)
    # Lists of different lengths, or of what is no number.
    except (TypeError, ValueError, RuntimeError):
        made = torch.empty(0)
    if made.ndim == 1:
        made = made.unsqueeze(0)
    if made.ndim != 2 or not made.numel():
        raise InputTypeError(
            f"{name} is {shown(value)}", "a tensor [number, size] or a list of vectors, as embed returns them"
        )
    return made
