"""How probable a text is to a model that predicts the next token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.format.golden import Case
from runtime.session import Session

# Tokens whose probabilities are computed at a time: a vocabulary of them takes megabytes in float64.
_AT_ONCE = 64


def log_likelihood(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """The sum of log p of each token but the first, for logits [1, tokens, vocabulary] and ids [1, tokens]."""
    total = 0.0
    for start in range(0, ids.shape[1] - 1, _AT_ONCE):
        chosen = ids[0, start + 1 : start + 1 + _AT_ONCE]
        shares = logits[0, start : start + len(chosen)].double().log_softmax(-1)
        total += float(shares.gather(1, chosen[:, None]).sum())
    return total


def likelihoods(session: Session, cases: Sequence[Case]) -> list[float]:
    """The log likelihood of each case's `input_ids`.

    Raises:
        ExportedModelError: a call fails.
    """
    return [log_likelihood(session(**case.inputs)["logits"], case.inputs["input_ids"]) for case in cases]
