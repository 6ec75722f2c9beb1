"""One row of token ids as it is written, and how its next token is chosen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from runtime.generation.sampling import Place, choose
from runtime.generation.settings import Settings

# Why a row ended: a stop token, the caller's wish (a stop string), or its largest number of tokens.
Finish = Literal["stop_token", "stop_string", "length"]


@dataclass(frozen=True)
class Step:
    """One new token of one row: `row` is its number among the prompts.

    `logprob` is the natural logarithm of its probability by the model's own logits; None if it was not asked for.
    `finish` is set if it is the row's last one.
    """

    row: int
    token: int
    logprob: float | None
    finish: Finish | None


class Row:
    """A prompt and what has been written behind it.

    Args:
        number: the row's number among the prompts; its draws begin with `settings.seed` and what `shift` adds.
        prompt: its ids, one at least.
        most: how many new tokens it may get, one at least.
        settings: how to choose.
        stop_ids: tokens that end it.
        logprobs: whether steps tell probabilities.
        shift: added to the seed.
    """

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        most: int,
        settings: Settings,
        stop_ids: Collection[int],
        *,
        logprobs: bool = False,
        shift: int = 0,
    ) -> None:
        self.number = number
        self.ids = list(prompt)
        self.prompt = len(self.ids)
        self._settings, self._stop_ids, self._logprobs = settings, stop_ids, logprobs
        self._most = self.prompt + most
        self._generator = torch.Generator().manual_seed(settings.seed + shift)

    def take(self, logits: torch.Tensor) -> Step:
        """Choose the next token.

        Args:
            logits: those behind the last token, [vocabulary].

        Raises:
            ArtifactFailedError, InputTextError: as for `choose`.
        """
        place = Place(self.ids, self.prompt, self._most, self._stop_ids)
        token = choose(logits, place, self._settings, self._generator)
        self.ids.append(token)
        logprob = float(logits.log_softmax(-1)[token]) if self._logprobs else None
        finish: Finish | None = "length" if len(self.ids) >= self._most else None
        return Step(self.number, token, logprob, "stop_token" if token in self._stop_ids else finish)
