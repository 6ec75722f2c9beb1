"""From a CTC model's scores to text: the best id of each step, as the model's tokenizer decodes them.

Equal neighbours are one token, and the blank token is left out. Tokens are characters, listed in the manifest, or
pieces of words, which tokenizer.json joins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Literal

from runtime.audio.results import Chunk, Transcript
from runtime.errors import InputTaskError
from runtime.format.manifest import CtcCharacters, CtcInfo

Timestamps = Literal["word", "char"]
# A token with its first step and the one after its last.
_Token = tuple[str, int, int]
# What transformers writes without the space before it.
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def transcript(
    ids: Sequence[int], info: CtcInfo, rate: int, timestamps: Timestamps | None, join: Callable[[Sequence[int]], str]
) -> Transcript:
    """The text of the best ids of all steps.

    Args:
        ids: one per step.
        info: how to decode them.
        rate: the model's, for times.
        timestamps: which parts of the text to give with their times; None: none.
        join: the text of ids by tokenizer.json, for a model without `info.characters`.

    Raises:
        InputTaskError: times are asked for, and the model's tokens or configuration do not give them.
        InputTextError: the tokenizer fails.
    """
    characters = info.characters
    if timestamps is not None and (characters is None or info.samples_per_step is None):
        raise InputTaskError(
            f"timestamps={timestamps!r} on a model whose "
            + ("tokens are pieces of words" if characters is None else "configuration gives no time per step"),
            "no timestamps",
        )
    if characters is None:
        return Transcript(join([number for number, _ in groupby(ids) if number != info.blank_id]), ())
    tokens = list(_printed(_collapsed(ids, characters), characters))
    text = _text(tokens, characters)
    if timestamps is None:
        return Transcript(text, ())
    parts = tokens if timestamps == "char" else _words(tokens, characters.space)
    step = info.samples_per_step or 1
    return Transcript(text, tuple(Chunk(part, start * step / rate, end * step / rate) for part, start, end in parts))


def _text(tokens: Sequence[_Token], characters: CtcCharacters) -> str:
    text = "".join(token for token, _, _ in tokens).strip()
    text = text.lower() if characters.lower_case else text
    for spaced in _SPACED if characters.clean_up_spaces else ():
        text = text.replace(spaced, "'" if spaced == " ' " else spaced[1:])
    return text


def _collapsed(ids: Sequence[int], characters: CtcCharacters) -> Iterator[_Token]:
    """Runs of equal tokens, blanks too."""
    end = 0
    for token, run in groupby(characters.tokens[number] for number in ids):
        start, end = end, end + len(list(run))
        yield token, start, end


def _printed(tokens: Iterator[_Token], characters: CtcCharacters) -> Iterator[_Token]:
    for token, start, end in tokens:
        if token != characters.blank:
            yield characters.space if token == characters.delimiter else token, start, end


def _words(tokens: Sequence[_Token], space: str) -> Iterator[_Token]:
    """Runs of tokens between spaces. A word ends where its last token ends."""
    for spaces, run in groupby(tokens, key=lambda token: token[0] == space):
        if not spaces:
            word = list(run)
            yield "".join(token for token, _, _ in word), word[0][1], word[-1][2]
