"""Write texts on: prompts or messages in, the model's texts out, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.errors import ArtifactFailedError, ExportedModelError, InputError, InputTaskError, InputTextError
from runtime.format.manifest import GenerationInfo
from runtime.generation.loop import Decode, Finish, Loop, Step
from runtime.generation.settings import NEW_TOKENS, Settings
from runtime.text.chat import check_messages, render
from runtime.text.encoder import TextEncoder
from runtime.text.results import Generated
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

# Rows that are written together. More of them make a token cheaper, and each waits longer for its own.
MAX_ROWS = 16
# What a decoder of bytes puts where a character is not complete yet.
_INCOMPLETE = "\ufffd"


@dataclass
class _Text:
    """One prompt, and what has been written behind it.

    `sent` is how much of the text has been given out piece by piece.
    """

    number: int
    prompt: list[int]
    most: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    sent: int = 0
    finish: Finish | None = None


@dataclass(frozen=True)
class Request:
    """What is wanted of all prompts of one call; `most` is the largest number of new tokens, None for the usual one."""

    settings: Settings
    most: int | None
    stop: tuple[str, ...]
    logprobs: bool


class Stream(Iterator[str]):
    """Pieces of a text as it is written; none ends within a character, and together they are the result's text."""

    def __init__(self, pieces: Iterator[str], result: Callable[[], Generated]) -> None:
        self._pieces, self._result = pieces, result
        self.result: Generated | None = None

    def __next__(self) -> str:
        """The next piece; behind the last one, `result` is set."""
        try:
            return next(self._pieces)
        except StopIteration:
            self.result = self._result()
            raise


class TextGenerator:
    """Writes texts with one artifact. Safe to use from several threads: each call has a cache of its own.

    Args:
        decode: the artifact's method.
        info: the manifest's section.
        encoder: encodes and decodes with the artifact's tokenizer.
    """

    def __init__(self, decode: Decode, info: GenerationInfo, encoder: TextEncoder) -> None:
        self._decode, self._info, self._encoder = decode, info, encoder

    def results(
        self, prompts: Sequence[Any], request: Request, errors: str, name: str
    ) -> list[Generated | ExportedModelError]:
        """One result per prompt, in order; an error in its place, or with `errors="raise"` the first one raised.

        Args:
            prompts: texts, or lists of messages.
            request: what is wanted.
            errors: `raise` or `return`.
            name: what errors call a prompt.
        """
        texts = self._texts(prompts, request)
        found: dict[int, Generated | ExportedModelError] = {}
        for number, one in enumerate(texts):
            if isinstance(one, InvalidText):
                if errors == "raise":
                    raise one.error(f"{name} {number + 1}" if len(prompts) > 1 else f"the {name}")
                found[number] = one.error(f"the {name}")
        good = sorted((one for one in texts if isinstance(one, _Text)), key=lambda one: len(one.prompt))
        for start in range(0, len(good), MAX_ROWS):
            group = good[start : start + MAX_ROWS]
            for one, result in zip(group, self._group(group, request, errors), strict=True):
                found[one.number] = result
        return [found[number] for number in range(len(prompts))]

    def stream(self, prompt: Any, request: Request, name: str) -> Stream:
        """The text behind one prompt, piece by piece."""
        (one,) = self._texts([prompt], request)
        if isinstance(one, InvalidText):
            raise one.error(f"the {name}")
        return Stream(self._pieces(one, request), lambda: self._result(one, request))

    def _pieces(self, one: _Text, request: Request) -> Iterator[str]:
        for _ in self._steps([one], request):
            if piece := self._piece(one, request.stop):
                yield piece

    def _group(self, group: list[_Text], request: Request, errors: str) -> list[Generated | ExportedModelError]:
        try:
            for _ in self._steps(group, request):
                pass
        except (InputError, ArtifactFailedError) as error:
            if len(group) == 1:
                if errors == "raise":
                    raise
                return [error]
            # Written alone, only the text that caused the error fails.
            fresh = [_Text(one.number, one.prompt, one.most) for one in group]
            return [result for one in fresh for result in self._group([one], request, errors)]
        return [self._result(one, request) for one in group]

    def _steps(self, group: Sequence[_Text], request: Request) -> Iterator[None]:
        """Write all texts of a group on, one token of each per step."""
        loop = Loop(
            self._decode,
            self._info,
            [one.prompt for one in group],
            [one.most for one in group],
            request.settings,
            logprobs=request.logprobs,
            numbers=[one.number for one in group],
        )
        for steps in loop.steps():
            for step in steps:
                one = group[step.row]
                self._take(one, step, request.stop)
                if one.finish is not None:
                    loop.end(step.row)
            yield

    def _take(self, one: _Text, step: Step, stop: Sequence[str]) -> None:
        one.ids.append(step.token)
        if step.logprob is not None:
            one.logprobs.append(step.logprob)
        one.finish = step.finish
        shown = one.ids[:-1] if step.finish == "stop_token" else one.ids
        one.text = self._encoder.decode(shown, special=False)
        places = [place for text in stop if (place := one.text.find(text)) >= 0]
        if places:
            one.text = one.text[: min(places)]
            one.finish = "stop_string"

    def _piece(self, one: _Text, stop: Sequence[str]) -> str:
        """What can be given out: whole characters, and nothing that may be the beginning of a stop string."""
        ready = len(one.text)
        if one.finish is None:
            while ready and one.text[ready - 1] == _INCOMPLETE:
                ready -= 1
            ready -= max((_overlap(one.text[:ready], text) for text in stop), default=0)
        piece = one.text[one.sent : ready]
        one.sent = max(one.sent, ready)
        return piece

    def _result(self, one: _Text, request: Request) -> Generated:
        assert one.finish is not None
        logprobs = tuple(one.logprobs) if request.logprobs else None
        return Generated(one.text, tuple(one.ids), one.finish, len(one.prompt), logprobs)

    def _texts(self, prompts: Sequence[Any], request: Request) -> list[_Text | InvalidText]:
        """Each prompt's tokens, or why it cannot be used."""
        rendered = [self._rendered(prompt) if isinstance(prompt, (list, tuple)) else prompt for prompt in prompts]
        found: dict[int, Encoding | InvalidText] = {
            number: one for number, one in enumerate(rendered) if isinstance(one, InvalidText)
        }
        for special in (False, True):
            # A template writes its special tokens itself.
            numbers = [
                number
                for number, prompt in enumerate(prompts)
                if number not in found and isinstance(prompt, (list, tuple)) != special
            ]
            encodings = self._encoder.prompts([rendered[number] for number in numbers], special=special)
            found |= dict(zip(numbers, encodings, strict=True))
        return [self._text(number, found[number], request) for number in range(len(prompts))]

    def _rendered(self, messages: Sequence[Any]) -> str | InvalidText:
        if self._info.chat is None:
            raise InputTaskError(
                "the artifact has no chat template", "a text as prompt", "export a folder that has chat_template.jinja"
            )
        try:
            return render(self._info.chat, check_messages(messages))
        except InputTextError as error:
            return InvalidText(f"cannot be used: {error.found}", error.expected, error.remedy)

    def _text(self, number: int, found: Encoding | InvalidText, request: Request) -> _Text | InvalidText:
        if isinstance(found, InvalidText):
            return found
        ids, longest = list(found.ids), self._info.longest
        if not ids:
            return InvalidText("is empty", "at least one token")
        room = longest - len(ids)
        if room < 1:
            return InvalidText(
                f"has {len(ids)} tokens", f"at most {longest - 1}, which leaves room for a new one", "shorten it"
            )
        if request.most is not None and request.most > room:
            return InvalidText(
                f"has {len(ids)} tokens, behind which there is room for {room}",
                f"max_new_tokens of at most that, not {request.most}",
                "shorten it, or ask for fewer tokens",
            )
        return _Text(number, ids, min(room, request.most or NEW_TOKENS))


def is_conversation(prompt: Any) -> bool:
    """Whether a prompt is a list of messages, and not of texts."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], Mapping)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text with which the stop string begins."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
