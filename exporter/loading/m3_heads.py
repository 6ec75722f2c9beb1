"""The two further heads of BGE-M3: a weight and a vector per token, from the files beside the model's weights.

Both files are read as tensors alone (`weights_only`), so nothing in them runs. Files of other sizes are refused.
"""

from __future__ import annotations

import torch

from exporter.loading.hub import ModelFiles
from exporter.loading.pooling import Dense, M3Head, SentenceHead
from exporter.loading.tokenizer import TokenizerPart
from exporter.loading.weight_files import load_pickled
from runtime.errors import CheckpointError
from runtime.format.manifest import TokenOutputs

WEIGHTS_FILE, VECTORS_FILE = "sparse_linear.pt", "colbert_linear.pt"


def add_heads(files: ModelFiles, head: SentenceHead, hidden: int | None) -> tuple[SentenceHead, list[str]]:
    """The head with those of tokens if both files are there, and a note.

    Args:
        files: the model's.
        head: that of texts.
        hidden: the size of a token's vector, if the configuration says it.

    Raises:
        CheckpointError: a file is damaged, or is not a linear layer of this model.
    """
    found = [name for name in (WEIGHTS_FILE, VECTORS_FILE) if files.has(name)]
    if len(found) < 2:
        # The authors' code needs both.
        return head, [f"{name} is not used: it belongs to another file, which is missing" for name in found]
    weights, vectors = (_linear(files, name, hidden) for name in found)
    if weights.weight.shape[0] != 1:
        raise _damaged(files, WEIGHTS_FILE, f"makes {weights.weight.shape[0]} numbers per token", "one number")
    return M3Head(head, weights, vectors), [f"a weight and a vector per token by {' and '.join(found)}"]


def token_outputs(tokenizer: TokenizerPart) -> TokenOutputs:
    """What the manifest says about the outputs of the two heads; the tokens without a weight are the special ones."""
    fast = tokenizer.fast
    names = ("cls_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    ids = {getattr(fast, name, None) for name in names}
    return TokenOutputs(*M3Head.further, tuple(sorted(int(number) for number in ids if number is not None)))


def _linear(files: ModelFiles, name: str, hidden: int | None) -> Dense:
    tensors = load_pickled(files, name)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    sizes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if weight is None or weight.dim() != 2 or sizes != {"weight": weight.shape, "bias": (weight.shape[0],)}:
        raise _damaged(files, name, f"holds {sizes}"[:200], "weight and bias of a linear layer")
    if hidden is not None and weight.shape[1] != hidden:
        raise _damaged(files, name, f"takes vectors of {weight.shape[1]} numbers", f"{hidden}, as the model makes")
    return Dense(weight, bias, torch.nn.Identity())


def _damaged(files: ModelFiles, name: str, found: str, expected: str) -> CheckpointError:
    return CheckpointError(f"{name} of {files.id} {found}", expected, "copy the whole folder again, or remove the file")
