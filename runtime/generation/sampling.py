"""Choose the next token of a row from its logits, by transformers' definitions and in transformers' order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from runtime.errors import ArtifactFailedError, InputTextError
from runtime.generation.settings import Settings


def choose(logits: torch.Tensor, seen: Sequence[int], settings: Settings, generator: torch.Generator) -> int:
    """The id of the next token.

    Args:
        logits: float32 [vocabulary].
        seen: the row's ids so far, prompt included.
        settings: how to choose.
        generator: the row's own, for draws.

    Raises:
        ArtifactFailedError: the model gave logits that are no numbers.
        InputTextError: the settings made scores of them that are none.
    """
    scores = logits
    if settings.repetition_penalty is not None:
        scores = _penalised(scores, seen, settings.repetition_penalty)
    if settings.sample and settings.temperature != 1:
        scores = scores / settings.temperature
    _check(logits, scores)
    if not settings.sample:
        return int(scores.argmax())
    ids, scores = candidates(scores, settings)
    drawn = torch.multinomial(torch.softmax(scores, -1), 1, generator=generator)
    return int(ids[drawn])


def candidates(scores: torch.Tensor, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids that may be drawn, and their scores, whose softmax are the probabilities.

    Args:
        scores: float32 [vocabulary], after the penalty and the temperature.
        settings: how to choose.
    """
    ids = torch.arange(len(scores))
    if settings.top_k is not None and settings.top_k < len(scores):
        # Scores equal to the last one stay.
        ids, scores = _those(ids, scores, scores >= scores.topk(settings.top_k).values[-1])
    if settings.top_p is not None:
        ordered, order = scores.sort()
        least = ordered.softmax(-1).cumsum(-1) <= 1 - settings.top_p
        # The best one stays.
        least[-1] = False
        removed = torch.zeros_like(least).scatter(0, order, least)
        ids, scores = _those(ids, scores, ~removed)
    if settings.min_p is not None:
        shares = scores.softmax(-1)
        ids, scores = _those(ids, scores, shares >= settings.min_p * shares.max())
    return ids, scores


def _check(logits: torch.Tensor, scores: torch.Tensor) -> None:
    # One that is not a number is the largest; with all at minus infinity there is nothing to choose from either.
    if scores.numel() and math.isfinite(float(scores.max())):
        return
    if logits.numel() and math.isfinite(float(logits.max())):
        raise InputTextError(
            f"temperature and repetition_penalty make the largest score {float(scores.max())}",
            "a finite number",
            "use settings nearer to 1",
        )
    raise ArtifactFailedError(
        f"the model's largest logit is {float(logits.max()) if logits.numel() else 'absent'}",
        "a finite number",
        "run `run-model check`, and export again if it fails too",
    )


def _those(ids: torch.Tensor, scores: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return ids[wanted], scores[wanted]


def _penalised(scores: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Scores of ids that were seen are made smaller, those below 0 by multiplication."""
    index = torch.tensor(sorted(set(seen)), dtype=torch.int64)
    found = scores[index]
    return scores.scatter(0, index, torch.where(found < 0, found * penalty, found / penalty))
