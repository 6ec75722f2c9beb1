"""Decoders that rerank: which tokens they answer with, and a model that scores these alone.

The score of a pair is what the model says to its true token, less what it says to its false one, at the last token. The
table of the whole vocabulary is replaced by the rows of these tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.loading import known_settings
from exporter.loading.model_errors import named_model_errors
from exporter.loading.pooling import TokenScoreHead
from exporter.loading.sentence_modules import Modules
from exporter.loading.settings import Settings
from exporter.loading.tokenizer import TokenizerPart
from runtime.errors import CheckpointError

# The one label of the model.
LABELS = ("relevance",)
# The words that the library takes without a LogitScore.
_YES, _NO = "yes", "no"
_PROBE = 4
# Far above rounding, and far below what another row would change.
_SAME = 1e-3


def read_token_ids(settings: Settings, modules: Modules | None, tokenizer: TokenizerPart) -> tuple[int, ...]:
    """The true token, then the false one if there is one.

    Raises:
        CheckpointError: the folder does not say them.
    """
    if modules is None:
        known = tokenizer.fast.get_vocab() if tokenizer.fast is not None else {}
        if _YES not in known or _NO not in known:
            raise CheckpointError(
                f"the tokenizer of {settings.files.id} does not have the tokens {_YES} and {_NO}",
                "these, or modules.json with a LogitScore that names others",
                "save the folder with sentence-transformers",
            )
        return int(known[_YES]), int(known[_NO])
    place = modules.listed[1].config
    found = settings.read(place, known_settings.LOGIT_SCORE)
    if found is None:
        raise CheckpointError(
            f"{settings.files.id} has no {place}", "the tokens that count as yes and no", "copy the whole folder again"
        )
    ids = [found.get("true_token_id"), found.get("false_token_id")]
    if ids[1] is None:
        ids.pop()
    for key, number in zip(("true_token_id", "false_token_id"), ids, strict=False):
        if type(number) is not int or number < 0:
            raise settings.refusal(place, key, number, "it is not the number of a token")
    return tuple(int(number) for number in ids if number is not None)


def score_tokens(model: Any, ids: tuple[int, ...], place: str) -> TokenScoreHead:
    """Replace the model's scores of the vocabulary by those of `ids`, and give what makes one score of them.

    Args:
        model: with a table of the vocabulary at its end.
        ids: the tokens.
        place: the model, for messages.

    Raises:
        CheckpointError: it has no such table, or not these tokens, or does more to its scores than to each alone.
    """
    table = model.get_output_embeddings()
    rows = getattr(table, "weight", None)
    if rows is None or rows.dim() != 2 or max(ids) >= rows.shape[0]:
        raise CheckpointError(
            f"{type(model).__name__} of {place} has no scores for the tokens {', '.join(map(str, ids))}",
            "a linear layer over the vocabulary at its end",
            "this model cannot be exported for reranking",
        )
    inputs = torch.arange(1, 1 + _PROBE)[None] % rows.shape[0]
    with named_model_errors(f"1x{_PROBE} tokens"), torch.no_grad():
        expected = model(input_ids=inputs).logits[..., list(ids)]
        bias = getattr(table, "bias", None)
        model.set_output_embeddings(TokenRows(rows[list(ids)], None if bias is None else bias[list(ids)]))
        found = model(input_ids=inputs).logits
    if found.shape != expected.shape or (found - expected).abs().max() > _SAME * (1 + expected.abs().max()):
        raise CheckpointError(
            f"{type(model).__name__} of {place} scores a token by more than its row of the table",
            "scores that do not depend on each other",
            "this model cannot be exported for reranking",
        )
    return TokenScoreHead()


class TokenRows(torch.nn.Module):
    """Some rows of a linear layer, in float32 in every precision."""

    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach().float().clone())
        self.register_parameter("bias", None if bias is None else torch.nn.Parameter(bias.detach().float().clone()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of each token, […, rows]."""
        bias = None if self.bias is None else self.bias.float()
        return torch.nn.functional.linear(hidden.float(), self.weight.float(), bias)
