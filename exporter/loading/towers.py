"""One tower of a model that compares texts with images or sounds (CLIP, SigLIP, CLAP): the part behind one method.

The whole model is loaded, and the parts of its other towers are taken out, so that the file holds one tower's weights.
Which parts these are follows from their names; if the tower needs one of them after all, its first call says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from exporter.config.tasks import Task
from exporter.loading.pooling import Cut, Normalize
from exporter.loading.tokenizer import TokenizerPart
from runtime.errors import CheckpointError
from runtime.format.manifest import EmbeddingInfo, Similarity

# Methods that compute a tower's vectors, → words in the names of the other towers' parts.
_OTHERS = {
    "get_text_features": ("vision", "visual", "image", "audio", "video"),
    "get_image_features": ("text", "audio"),
    "get_audio_features": ("text", "vision", "visual", "image"),
}
# Model types whose texts are padded to one length, and what pads them: the model reads the last place, padding or not.
_PADDED_TEXTS = ("siglip", "siglip2")
# Model types whose vectors have length 1 already.
_NORMALIZING = ("clap",)


@dataclass(frozen=True)
class TextPadding:
    """All texts are padded to `length` tokens. If not `masked`, the model has no mask, and reads the padding too."""

    length: int
    masked: bool


class Tower(torch.nn.Module):
    """Calls one method of a model, and gives its vectors under the name of the task's output.

    Instances come from `take_tower`, which gives each a `forward` with the parameters of the method.
    """

    def __init__(self, whole: Any, method: str, output: str, following: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.whole = whole
        self.config = whole.config
        self._method = method
        self._output = output
        # The modules of a sentence-transformers folder.
        self.behind = torch.nn.Sequential(*following)

    def vectors(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tower's vectors by the name of the output."""
        found = getattr(self.whole, self._method)(**inputs)
        # transformers 4 returns the vectors alone.
        vectors = found if isinstance(found, torch.Tensor) else getattr(found, "pooler_output", None)
        return {} if vectors is None else {self._output: self.behind(vectors.float())}


def has_towers(name: str, method: str) -> bool:
    """Whether a class of transformers compares texts with something else, and has a method for this tower."""
    kind = getattr(transformers, name, None)
    return all(hasattr(kind, one) for one in ("get_text_features", method)) and any(
        hasattr(kind, one) for one in _OTHERS if one != "get_text_features"
    )


def take_tower(
    whole: Any, task: Task, similarity: Similarity, following: Sequence[torch.nn.Module]
) -> tuple[Tower, EmbeddingInfo]:
    """The task's tower, and how its vectors are compared with those of the other one.

    Args:
        whole: the model, which loses the parts of its other towers.
        task: of one tower.
        similarity: how two vectors are compared.
        following: the modules that follow the model in a sentence-transformers folder.
    """
    # Other modules than these make other cosines.
    same = all(isinstance(module, Normalize) for module in following)
    scale, bias = _scale_and_bias(whole) if same else (None, None)
    words = _OTHERS[task.tower]
    for name in [name for name, _ in whole.named_children()]:
        if any(word in name for word in words):
            delattr(whole, name)
    # What is left of the comparison itself.
    for name in [name for name, _ in whole.named_parameters(recurse=False)]:
        if name.startswith("logit_") or name == "temperature":
            delattr(whole, name)

    def forward(self: Tower, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.vectors(**inputs)

    known = inspect.signature(getattr(whole, task.tower)).parameters.values()
    # CLAP's audio tower takes a mask that it never reads.
    ignored = ("attention_mask",) if task.tower == "get_audio_features" else ()
    named = [one for one in known if one.kind is not one.VAR_KEYWORD and one.name not in ignored]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # Type checkers do not know this attribute of functions (PEP 362).
    forward.__signature__ = inspect.Signature([this, *named])  # type: ignore[attr-defined]
    # Errors and the manifest name the class of the whole model.
    kind = type(type(whole).__name__, (Tower,), {"forward": forward})
    tower: Tower = kind(whole, task.tower, task.outputs[0].name, following)
    kept = [module for module in following if not isinstance(module, Cut)]
    normalized = isinstance(kept[-1], Normalize) if kept else whole.config.model_type in _NORMALIZING
    return tower.eval(), EmbeddingInfo({}, normalized, similarity, scale=scale, bias=bias)


def _scale_and_bias(whole: Any) -> tuple[float | None, float | None]:
    """What the whole model multiplies cosines with and adds to them; None if it has no such number."""

    def number(name: str) -> float | None:
        found = getattr(whole, name, None)
        return float(found.detach()) if isinstance(found, torch.Tensor) and found.numel() == 1 else None

    logarithm, temperature = number("logit_scale"), number("temperature")
    if logarithm is not None:
        return float(torch.tensor(logarithm).exp()), number("logit_bias")
    return (None if not temperature else 1 / temperature), None


def takes_texts(task: Task) -> bool:
    """Whether the model may take texts: all but a tower for something else."""
    return not task.tower or "text" in task.groups


def pad_texts(
    place: str, config: Any, task: Task, longest: int | None, tokenizer: TokenizerPart, modules: bool
) -> tuple[TokenizerPart, TextPadding | None]:
    """The tokenizer, and how it pads the texts of a tower that takes one length only.

    The padding is None if rows are padded to the longest of a batch. The folder's tokenizer says whether there is a
    mask: those of the published models give none.

    Args:
        place: the model, for messages.
        config: of the model.
        task: what it is exported for.
        longest: the number of tokens that the model's positions admit.
        tokenizer: the folder's.
        modules: whether it is a sentence-transformers folder.

    Raises:
        CheckpointError: the length is not known, or the folder's library pads otherwise.
    """
    if task.tower != "get_text_features" or config.model_type not in _PADDED_TEXTS:
        return tokenizer, None
    if modules:
        raise CheckpointError(
            f"modules.json of {place} names a {config.model_type} model, whose texts sentence-transformers pads to the "
            "longest of a batch: a text's vector depends on the others",
            "texts that are all padded to one length, as the model was trained",
            "export a folder without modules.json",
        )
    length = longest if tokenizer.info is None else tokenizer.info.max_length
    if length is None:
        raise CheckpointError("config.json has no max_position_embeddings", "the length to which texts are padded")
    return tokenizer.padded_to(length), TextPadding(length, tokenizer.gives_mask)
