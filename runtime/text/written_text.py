"""A text as it is written, token by token: its characters so far, and what of them can be shown already."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.generation.row import Finish, Step
from runtime.text.encoder import TextEncoder
from runtime.text.results import Generated

# What a decoder of bytes puts where a character is not complete yet.
_INCOMPLETE = "\ufffd"


class WrittenText:
    """What has been written behind one prompt.

    Args:
        encoder: decodes with the artifact's tokenizer.
        number: the prompt's number among those of the caller.
        prompt: its ids.
        most: how many new tokens it may get.
        stop: texts that end it; they are not part of it.
        logprobs: whether the result tells probabilities.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        number: int,
        prompt: Sequence[int],
        most: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> None:
        self.number, self.prompt, self.most = number, list(prompt), most
        self.finish: Finish | None = None
        self._encoder, self._stop, self._wants_logprobs = encoder, stop, logprobs
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._text = ""
        # How much of the text has been given out piece by piece.
        self._sent = 0

    def take(self, step: Step) -> None:
        """Add a token; `finish` is set if it is the last one."""
        self._ids.append(step.token)
        if step.logprob is not None:
            self._logprobs.append(step.logprob)
        self.finish = step.finish
        shown = self._ids[:-1] if step.finish == "stop_token" else self._ids
        self._text = self._encoder.decode(shown, special=False)
        places = [place for text in self._stop if (place := self._text.find(text)) >= 0]
        if places:
            self._text = self._text[: min(places)]
            self.finish = "stop_string"

    def piece(self) -> str:
        """What can be given out now: whole characters, and nothing that may be the beginning of a stop string."""
        ready = len(self._text)
        if self.finish is None:
            while ready and self._text[ready - 1] == _INCOMPLETE:
                ready -= 1
            ready -= max((_overlap(self._text[:ready], text) for text in self._stop), default=0)
        piece = self._text[self._sent : ready]
        self._sent = max(self._sent, ready)
        return piece

    def again(self) -> WrittenText:
        """The same prompt with nothing behind it."""
        return WrittenText(self._encoder, self.number, self.prompt, self.most, self._stop, self._wants_logprobs)

    def result(self) -> Generated:
        """The whole text, once it has ended."""
        assert self.finish is not None
        logprobs = tuple(self._logprobs) if self._wants_logprobs else None
        return Generated(self._text, tuple(self._ids), self.finish, len(self.prompt), logprobs)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text with which the stop string begins."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
