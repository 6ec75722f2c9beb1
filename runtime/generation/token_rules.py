"""Which tokens may come next, and which must: transformers' processors of scores, in its order.

They hold for greedy texts, for draws and for beams alike.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch

from runtime.format.manifest import TokenRules

_NEVER = -math.inf
_NO_RULES = TokenRules()


def apply_rules(
    scores: torch.Tensor, ids: Sequence[int], prompt: int, most: int, rules: TokenRules, stop_ids: Collection[int]
) -> torch.Tensor:
    """The scores, with minus infinity for tokens that may not come next.

    Args:
        scores: float32 [vocabulary], after the penalty for repetition; not written to.
        ids: the row so far.
        prompt: how many of them are the prompt's.
        most: how many tokens the row can have, prompt included.
        rules: what holds.
        stop_ids: the tokens that end a row.
    """
    if rules == _NO_RULES:
        return scores
    scores = scores.clone()
    _forbid(scores, _repeating(ids, rules.no_repeat_ngram_size))
    _forbid(scores, _finishing_words(ids, rules.bad_words_ids, stop_ids))
    if len(ids) < rules.min_length or len(ids) - prompt < rules.min_new_tokens:
        _forbid(scores, stop_ids)
    if rules.forced_bos_token_id is not None and len(ids) == 1:
        scores = _only([rules.forced_bos_token_id], scores)
    if rules.forced_eos_token_ids and len(ids) == most - 1:
        scores = _only(rules.forced_eos_token_ids, scores)
    beyond = len(ids) - prompt - rules.decay_start
    if rules.decay_factor != 1 and beyond > 0 and stop_ids:
        ends = torch.tensor(list(stop_ids))
        more = scores[ends].abs() * (rules.decay_factor**beyond - 1)
        scores[ends] += more.masked_fill(~scores[ends].isfinite(), 0.0)
    _forbid(scores, rules.suppress_tokens)
    # Behind a prompt of one token, a forced one comes first.
    if len(ids) == (prompt if prompt > 1 or rules.forced_bos_token_id is None else prompt + 1):
        _forbid(scores, rules.begin_suppress_tokens)
    return scores


def _forbid(scores: torch.Tensor, ids: Collection[int]) -> None:
    if ids:
        scores[torch.tensor(list(ids))] = _NEVER


def _only(ids: Collection[int], scores: torch.Tensor) -> torch.Tensor:
    """Scores that leave these tokens alone, all with the same."""
    found = torch.full_like(scores, _NEVER)
    found[torch.tensor(list(ids))] = 0
    return found


def _repeating(ids: Sequence[int], size: int) -> list[int]:
    """Tokens that would complete a run of `size` tokens that the row holds already."""
    if not size or len(ids) < size:
        return []
    begun = list(ids[len(ids) + 1 - size :])
    return [
        ids[place + size - 1] for place in range(len(ids) - size + 1) if list(ids[place : place + size - 1]) == begun
    ]


def _finishing_words(ids: Sequence[int], words: Sequence[Sequence[int]], stop_ids: Collection[int]) -> list[int]:
    """Last tokens of words whose others the row ends with; a stop token alone is no word."""
    found = []
    for word in words:
        begun = list(word[:-1])
        if not (len(word) == 1 and word[0] in stop_ids) and list(ids[len(ids) - len(begun) :]) == begun:
            found.append(word[-1])
    return found
