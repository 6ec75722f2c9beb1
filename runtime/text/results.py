"""The result types of `session.text`. Character positions count code points, as Python does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Classification:
    """The best label of a text. `scores` holds all labels that were asked for, the best first.

    Scores are probabilities: of one class of several (they sum to 1 over all labels), or of each label by itself;
    where the model is a regression they are its numbers as they are.
    """

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Tag:
    """A token, a word or a run of words with one label: `text[start:end]`.

    `word` is what the tokenizer makes of it, which may differ from the text in case and spaces. `score` is a
    probability, the mean over what was joined.
    """

    label: str
    score: float
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class Answer:
    """A part of the context: `context[start:end]`. All three are empty or 0 where there is no answer.

    `score` is the probability of the span's start times that of its end, summed over spans of the same words.
    """

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Candidate:
    """A token for one mask: its string, id, probability, and the whole text with it."""

    token: str
    id: int
    score: float
    text: str
