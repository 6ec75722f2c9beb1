"""What follows the model in a sentence-transformers folder, as torch modules: pooling, then vector to vector.

Each computes what the library's module of the same name does, in float32 whatever the precision of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# The library's names, in the library's order.
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# Activations of a Dense: those of torch that need no argument. Names are `torch.nn.modules.<file>.<Name>`.
ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        *(torch.nn.Identity, torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.ReLU, torch.nn.ReLU6, torch.nn.GELU),
        *(torch.nn.SiLU, torch.nn.Mish, torch.nn.LeakyReLU, torch.nn.ELU, torch.nn.SELU, torch.nn.CELU),
        *(torch.nn.Softplus, torch.nn.Softsign, torch.nn.Hardtanh, torch.nn.Hardswish, torch.nn.Hardsigmoid),
        *(torch.nn.LogSigmoid, torch.nn.Tanhshrink, torch.nn.Softshrink, torch.nn.Hardshrink),
    )
}


class Head(torch.nn.Module):
    """What follows the model: one of its outputs, and masks, become the outputs of the task.

    `reads` names the model's output. If `include_prompt` is false, the file has a mask of the tokens to pool as an
    input, which leaves out a prompt's.
    """

    reads = "last_hidden_state"
    # The optional outputs of the task that it gives.
    further: tuple[str, ...] = ()

    @property
    def include_prompt(self) -> bool:
        """Whether the tokens of a prompt are pooled too."""
        return True

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The task's outputs.

        Args:
            vectors: what the model gives per token, [batch, sequence, size].
            mask: int64 [batch, sequence], 1 at real tokens.
            pooled: the same, 1 at the tokens that are pooled.
        """
        raise NotImplementedError


class Pooling(torch.nn.Module):
    """Token vectors [batch, sequence, hidden] to [batch, hidden x number of modes].

    Args:
        modes: of `MODES`; their vectors are concatenated in this order.
        include_prompt: whether tokens of a prompt are pooled too.
    """

    def __init__(self, modes: Sequence[str], include_prompt: bool = True) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.include_prompt = include_prompt

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """One vector per row.

        Args:
            vectors: float32 [batch, sequence, hidden].
            mask: int64 [batch, sequence], 1 at real tokens.
            pooled: the same, 1 at the tokens that are pooled.
        """
        # Counted from the first real token on, which is not at position 0 if padding is on the left.
        positions = mask.cumsum(dim=1)
        return torch.cat([_pool(mode, vectors, pooled, positions) for mode in self.modes], dim=1)


class Dense(torch.nn.Module):
    """A linear layer and its activation, […, in] to […, out], in float32 in every precision."""

    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: torch.nn.Module) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.float())
        self.register_parameter("bias", None if bias is None else torch.nn.Parameter(bias.float()))
        self.activation = activation

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Of each row."""
        bias = None if self.bias is None else self.bias.float()
        result: torch.Tensor = self.activation(torch.nn.functional.linear(vectors, self.weight.float(), bias))
        return result.float()


class LayerNorm(torch.nn.Module):
    """Layer norm over [batch, size], in float32 in every precision."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.float())
        self.bias = torch.nn.Parameter(bias.float())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Of each row."""
        return torch.nn.functional.layer_norm(vectors, self.weight.shape, self.weight.float(), self.bias.float())


class Normalize(torch.nn.Module):
    """Scales each vector to length 1."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Of each row."""
        return torch.nn.functional.normalize(vectors, p=2.0, dim=-1)


class Cut(torch.nn.Module):
    """Keeps the first `size` numbers of each row, as the library's `truncate_dim` does."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """[batch, size], or the vectors as they are if they are shorter."""
        return vectors[:, : self.size]


class SentenceHead(Head):
    """A pooling, and the modules that follow it: one vector per row, [batch, hidden size x number of modes]."""

    def __init__(self, pooling: Pooling, following: Sequence[torch.nn.Module] = ()) -> None:
        super().__init__()
        self.pooling = pooling
        # Not named like the argument: the name is part of the digest of the weights.
        self.behind = torch.nn.Sequential(*following)

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length 1, but for one that is cut afterwards."""
        kept = [module for module in self.behind if not isinstance(module, Cut)]
        return bool(kept) and isinstance(kept[-1], Normalize)

    @property
    def include_prompt(self) -> bool:
        """Whether the tokens of a prompt are pooled too."""
        return self.pooling.include_prompt

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One vector per row."""
        return (self.behind(self.pooling(vectors.float(), mask, pooled)),)


class M3Head(SentenceHead):
    """A vector per text, and a weight and a vector of length 1 per token, as BGE-M3 makes them.

    Args:
        texts: the head of the vector per text.
        weights: a linear layer to one number.
        vectors: a linear layer.
    """

    further = ("token_weights", "token_vectors")

    def __init__(self, texts: SentenceHead, weights: Dense, vectors: Dense) -> None:
        super().__init__(texts.pooling, list(texts.behind))
        self.weights = weights
        self.vectors = vectors

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The vector of each row, then the weights and the vectors of its tokens."""
        vectors = vectors.float()
        tokens = torch.nn.functional.normalize(self.vectors(vectors), p=2.0, dim=-1)
        return (*super().forward(vectors, mask, pooled), self.weights(vectors).relu().squeeze(-1), tokens)


class TokenHead(Head):
    """A vector per token, [batch, sequence, size]: that of the model, then the modules that follow it."""

    def __init__(self, following: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.behind = torch.nn.Sequential(*following)

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The vectors of each row's tokens."""
        return (self.behind(vectors.float()),)


class SpladeHead(Head):
    """The scores of fill-mask to one weight per entry of the vocabulary, [batch, vocabulary].

    A weight is log(1 + score), 0 for negative scores, and the largest or the sum over the row's tokens.

    Args:
        strategy: `max` or `sum`.
        twice: take the logarithm twice (`log1p_relu`).
    """

    reads = "logits"

    def __init__(self, strategy: str, twice: bool) -> None:
        super().__init__()
        self.strategy = strategy
        self.twice = twice

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The weights of each row."""
        scores = vectors * mask.unsqueeze(-1).to(vectors.dtype)
        if self.strategy == "max":
            # The logarithm never changes which score is the largest, so one per entry is enough.
            return (self._weights(scores.max(dim=1).values.float()),)
        return (self._weights(scores.float()).sum(dim=1),)

    def _weights(self, scores: torch.Tensor) -> torch.Tensor:
        weights = scores.relu().log1p()
        return weights.log1p() if self.twice else weights


class TokenScoreHead(Head):
    """The scores of one or two tokens to one per row, [batch, 1]: that of the first less that of the second.

    They are read at each row's last real token, wherever its padding is.
    """

    reads = "logits"

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The score of each row."""
        last = (mask * mask.cumsum(dim=1)).argmax(dim=1)
        scores = vectors[torch.arange(mask.shape[0]), last].float()
        return (scores if scores.shape[1] == 1 else scores[:, :1] - scores[:, 1:],)


def _pool(mode: str, vectors: torch.Tensor, pooled: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One mode: [batch, sequence, hidden] to [batch, hidden]."""
    if mode == "cls":
        return _at(vectors, pooled.argmax(dim=1))
    if mode == "lasttoken":
        # The last of the pooled tokens; the first token of a row in which none is pooled.
        return _at(vectors, (pooled * positions).argmax(dim=1))
    mask = pooled.unsqueeze(-1).to(vectors.dtype)
    if mode == "max":
        return vectors.masked_fill(mask == 0, -1e9).max(dim=1).values
    weights = mask * positions.unsqueeze(-1).to(vectors.dtype) if mode == "weightedmean" else mask
    total = (vectors * weights).sum(dim=1)
    # The bound only matters for a row in which no token is pooled: its vector stays finite.
    count = weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def _at(vectors: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return vectors.gather(1, places.reshape(-1, 1, 1).expand(-1, 1, vectors.shape[2])).squeeze(1)
