"""Write a row on along several beams at once, and take the best: transformers' search, with the same tokens.

A beam is a row of the cache. After each token the best continuations of all beams together go on, so rows are copied,
dropped and put into another order. Scores are sums of logarithms of probabilities; those of texts that have ended are
divided by their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.errors import ArtifactFailedError
from runtime.format.manifest import GenerationInfo
from runtime.generation.cache import Caches
from runtime.generation.loop import Decode, read_prompts
from runtime.generation.row import Finish, Step
from runtime.generation.sampling import Place, processed
from runtime.generation.settings import Settings

# What a score is that shall not be chosen; not infinite, since it is added and compared.
_LEAST = -1.0e9


@dataclass(frozen=True)
class _Beam:
    """A prompt with what was written behind it, and the logarithms of these tokens' probabilities."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()


class BeamSearch:
    """The search behind one prompt.

    Args:
        decode: the file's method.
        info: the manifest's section.
        prompt: its ids, one at least, fewer than `info.longest`.
        most: how many new tokens there may be, one at least; within `info.longest` with the prompt.
        settings: how many beams, and how they are scored.
    """

    def __init__(
        self, decode: Decode, info: GenerationInfo, prompt: Sequence[int], most: int, settings: Settings
    ) -> None:
        self._decode, self._info, self._settings = decode, info, settings
        self._prompt, self._most, self._count = len(prompt), most, settings.beams.count
        # Only the first beam has a score: all begin with the same tokens.
        self._running = [_Beam(tuple(prompt))] * self._count
        self._scores = torch.full([self._count], _LEAST)
        self._scores[0] = 0
        # The best texts that have ended, best first; until there are so many, others without a score.
        self._best = list(self._running)
        self._best_scores = torch.full([self._count], _LEAST)
        self._ended = torch.zeros([self._count], dtype=torch.bool)
        self._improves = True

    def steps(self, *, logprobs: bool = False) -> list[Step]:
        """The tokens of the best text, each as a step of row 0.

        Args:
            logprobs: whether steps tell probabilities.

        Raises:
            ArtifactFailedError: the model failed, or its logits are not numbers.
        """
        caches = Caches(self._info, 1, self._prompt + 1)
        logits = read_prompts(self._decode, caches, [self._running[0].ids]).expand(self._count, -1)
        caches.keep_rows([0] * self._count)
        for length in range(1, self._most + 1):
            rows = self._extend(logits, length)
            if rows is None:
                break
            if rows != list(range(self._count)):
                caches.keep_rows(rows)
            caches.make_room(self._prompt + length)
            ids = torch.tensor([beam.ids[-1:] for beam in self._running])
            positions = torch.full_like(ids, self._prompt + length - 1)
            logits = self._decode(ids, positions, torch.zeros_like(ids), caches.tensors)[:, 0]
        found = self._best[0]
        new = found.ids[self._prompt :]
        finish: Finish = "stop_token" if new[-1] in self._info.stop_ids else "length"
        return [
            Step(0, token, logprob if logprobs else None, finish if number == len(new) - 1 else None)
            for number, (token, logprob) in enumerate(zip(new, found.logprobs, strict=True))
        ]

    def _extend(self, logits: torch.Tensor, length: int) -> list[int] | None:
        """Let beams have `length` new tokens; for each the number of the one that it continues, or None at the end."""
        if not bool(logits.max().isfinite()):
            raise ArtifactFailedError(
                "the model's logits are not finite",
                "numbers",
                "run `run-model check`, and export again if it fails too",
            )
        own = logits.log_softmax(-1)
        most = self._prompt + self._most
        places = [Place(beam.ids, self._prompt, most, self._info.stop_ids) for beam in self._running]
        scores = torch.stack([processed(one, place, self._settings) for one, place in zip(own, places, strict=True)])
        # So many that enough go on even if the best ones all end.
        kept = max(2, 1 + len(self._info.stop_ids)) * self._count
        top, index = torch.topk((scores + self._scores[:, None]).reshape(-1), min(kept, scores.numel()))
        vocabulary = scores.shape[1]
        beams, tokens = (index // vocabulary).tolist(), (index % vocabulary).tolist()
        found = [
            _Beam((*self._running[beam].ids, token), (*self._running[beam].logprobs, float(own[beam, token])))
            for beam, token in zip(beams, tokens, strict=True)
        ]
        ends = torch.tensor([token in self._info.stop_ids or length == self._most for token in tokens])
        going = top + ends.float() * _LEAST
        chosen = torch.topk(going, self._count).indices
        self._running, self._scores = [found[one] for one in chosen.tolist()], going[chosen]
        self._keep_ended(found, top, ends, length)
        return [beams[one] for one in chosen.tolist()] if self._goes_on(ends, length) else None

    def _keep_ended(self, found: list[_Beam], top: torch.Tensor, ends: torch.Tensor, length: int) -> None:
        """Of the best texts so far and those that end now, keep the best."""
        # Continuations behind the first ones are there to go on, and not to end.
        now = ends & (torch.arange(len(ends)) < self._count)
        full = bool(self._ended.all()) and self._settings.beams.early_stopping == "yes"
        scores = top / (length**self._settings.beams.length_penalty)
        scores = scores + float(full) * _LEAST + float(not self._improves) * _LEAST + (~now).float() * _LEAST
        all_scores, all_beams = torch.cat([self._best_scores, scores]), [*self._best, *found]
        chosen = torch.topk(all_scores, self._count).indices
        self._best, self._best_scores = [all_beams[one] for one in chosen.tolist()], all_scores[chosen]
        self._ended = torch.cat([self._ended, now])[chosen]

    def _goes_on(self, ends: torch.Tensor, length: int) -> bool:
        """Whether a beam may still become better than the texts that have ended, and one is left to go on."""
        beams = self._settings.beams
        hoped = self._most if beams.early_stopping == "never" and beams.length_penalty > 0 else length
        possible = self._scores[0] / (hoped**beams.length_penalty)
        worst = torch.where(self._ended, self._best_scores.min(), torch.tensor(_LEAST))
        self._improves = self._improves and bool((possible > worst).any())
        full = bool(self._ended.all()) and beams.early_stopping == "yes"
        return self._improves and not full and not bool(ends.all())
