"""The result types of `session.text`. Character positions count code points, as Python does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Classification:
    """The best label of a text, picture or sound. `scores` holds the requested number of labels, best first.

    Where classes share a label (ImageNet has two cranes), the best of them has it, and the others have the number of
    their class behind it: `crane (517)`.

    Scores are probabilities, of one class of several (they sum to 1 over all labels) or of each label independently.
    For a regression model they are its outputs unchanged.
    """

    label: str
    score: float
    scores: dict[str, float]


def classified(scores: Sequence[float], labels: Sequence[str], top_k: int | None) -> Classification:
    """The result for one score per label; `top_k` None keeps all."""
    ranked = sorted(range(len(labels)), key=lambda number: scores[number], reverse=True)
    named: dict[str, float] = {}
    for number in ranked[:top_k]:
        label = labels[number]
        named[f"{label} ({number})" if label in named else label] = scores[number]
    return Classification(labels[ranked[0]], scores[ranked[0]], named)


@dataclass(frozen=True)
class Ranked:
    """A document that was compared with a query: its place in the caller's list, its score, its text."""

    index: int
    score: float
    text: str


@dataclass(frozen=True)
class Tag:
    """A token, a word or several words with one label: `text[start:end]`.

    `word` is the tokenizer's form of it, which may differ from the text in case and spaces. `score` is a probability,
    the mean of those that were joined.
    """

    label: str
    score: float
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class Answer:
    """A part of the context: `context[start:end]`. If there is no answer, these three are empty or 0.

    `score` is the probability of the span's start times that of its end, summed over spans with the same text.
    """

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Candidate:
    """A token for one mask: its string, id and probability, and the whole text with the mask replaced by it."""

    token: str
    id: int
    score: float
    text: str


@dataclass(frozen=True)
class Generated:
    """A text that was written behind a prompt.

    `text` is without the prompt, special tokens and the stop string that ended it. `ids` are the new tokens, the stop
    token too if one ended it. `finish` says why it ended: `stop_token`, `stop_string`, or `length` if there was no more
    room. `prompt_tokens` is the number of the prompt's. `logprobs` are the natural logarithms of the probabilities of
    `ids` by the model's own logits; None if they were not asked for.
    """

    text: str
    ids: tuple[int, ...]
    finish: str
    prompt_tokens: int
    logprobs: tuple[float, ...] | None = None

    def __str__(self) -> str:
        return self.text
