"""Choose the next token of a row from its logits, by transformers' definitions and in transformers' order."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from runtime.errors import ArtifactFailedError, InputTextError
from runtime.generation.settings import Settings
from runtime.generation.token_rules import apply_rules


@dataclass(frozen=True)
class Place:
    """Where a row stands: its ids so far, how many of them are the prompt's, and how many it can have.

    `stop_ids` are the tokens that end it.
    """

    ids: Sequence[int]
    prompt: int
    most: int
    stop_ids: Collection[int]


def choose(logits: torch.Tensor, place: Place, settings: Settings, generator: torch.Generator) -> int:
    """The id of the next token.

    Args:
        logits: float32 [vocabulary].
        place: where the row stands.
        settings: how to choose.
        generator: the row's own, for draws.

    Raises:
        ArtifactFailedError: the model gave logits that are no numbers, or the rules of the artifact leave no token.
        InputTextError: the settings made scores of them that are none.
    """
    scores = processed(logits, place, settings)
    if scores is not logits and bool(scores.max() == -math.inf):
        raise ArtifactFailedError(
            f"the rules of generation_config.json leave no token behind {len(place.ids)} tokens", "at least one"
        )
    if settings.sample and settings.temperature != 1:
        scores = scores / settings.temperature
    best = _best(logits, scores)
    if not settings.sample:
        return best
    ids, scores = candidates(scores, settings)
    drawn = torch.multinomial(torch.softmax(scores, -1), 1, generator=generator)
    return int(ids[drawn])


def processed(scores: torch.Tensor, place: Place, settings: Settings) -> torch.Tensor:
    """The scores after what holds for greedy texts, draws and beams: the penalty for repetition, and the rules."""
    if settings.repetition_penalty is not None:
        scores = _penalised(scores, place.ids, settings.repetition_penalty)
    return apply_rules(scores, place.ids, place.prompt, place.most, settings.rules, place.stop_ids)


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
    if settings.typical_p is not None:
        ids, scores = _those(ids, scores, _typical(scores, settings.typical_p))
    if settings.epsilon_cutoff is not None:
        ids, scores = _those(ids, scores, _above(scores, torch.tensor(settings.epsilon_cutoff)))
    if settings.eta_cutoff is not None:
        least = torch.tensor(settings.eta_cutoff)
        entropy = torch.distributions.Categorical(logits=scores).entropy()
        ids, scores = _those(ids, scores, _above(scores, torch.min(least, least.sqrt() * torch.exp(-entropy))))
    return ids, scores


def _typical(scores: torch.Tensor, mass: float) -> torch.Tensor:
    """Which tokens are as surprising as expected, the most typical ones first, until they have this probability."""
    logarithms = scores.log_softmax(-1)
    expected = -(logarithms * logarithms.exp()).nansum(-1, keepdim=True)
    distance = (-logarithms - expected).abs()
    ordered, order = distance.sort()
    last = (scores[order].softmax(-1).cumsum(-1) < mass).sum().clamp(max=len(scores) - 1)
    removed = ordered > ordered[last]
    # The most typical one stays.
    removed[0] = False
    return ~torch.zeros_like(removed).scatter(0, order, removed)


def _above(scores: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Which tokens have at least this probability; the best one in any case."""
    return (scores.softmax(-1) >= least) | (scores >= scores.max())


def _best(logits: torch.Tensor, scores: torch.Tensor) -> int:
    """The id of the largest score, which must be a finite number."""
    # One that is not a number is the largest; with all at minus infinity there is nothing to choose from either.
    if scores.numel() and math.isfinite(float(scores[best := int(scores.argmax())])):
        return best
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
