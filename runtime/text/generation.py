"""Write texts on: prompts or messages in, the model's texts out, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.errors import ArtifactFailedError, ExportedModelError, InputError, InputTaskError, InputTextError
from runtime.format.manifest import GenerationInfo, SamplingDefaults
from runtime.generation.beams import BeamSearch
from runtime.generation.loop import Decode, Loop
from runtime.generation.settings import NEW_TOKENS, Settings, new_tokens, settings_of, stop_strings
from runtime.text.chat import check_messages, render
from runtime.text.encoder import TextEncoder
from runtime.text.results import Generated
from runtime.text.tokenizer import InvalidText
from runtime.text.written_text import WrittenText

if TYPE_CHECKING:
    from tokenizers import Encoding

# Rows that are written together. More of them make a token cheaper, and each waits longer for its own.
MAX_ROWS = 16


@dataclass(frozen=True)
class Request:
    """What is wanted of all prompts of one call; `most` is the largest number of new tokens, None for the usual one."""

    settings: Settings
    most: int | None
    stop: tuple[str, ...]
    logprobs: bool


def make_request(
    defaults: SamplingDefaults,
    *,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] = (),
    logprobs: bool = False,
    **options: Any,
) -> Request:
    """What is wanted, checked; arguments are those of `session.text.generate`, `options` those of `settings_of`.

    Raises:
        InputTextError: an option that does not fit.
    """
    settings = settings_of(defaults, **options)
    request = Request(settings, new_tokens(max_new_tokens), stop_strings(stop), bool(logprobs))
    if settings.beams.count > 1 and request.stop:
        raise InputTextError(
            f"num_beams is {settings.beams.count}, with stop strings",
            "one of the two",
            "leave stop out, or give num_beams=1",
        )
    return request


def expect_one_beam(request: Request, what: str) -> None:
    """Check that a text is written along one beam; `what` is in the way.

    Raises:
        InputTextError: it is not.
    """
    if request.settings.beams.count > 1:
        raise InputTextError(
            f"num_beams is {request.settings.beams.count}, with {what}",
            "1: the best of several is known at the end",
            "give num_beams=1",
        )


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
        self.decode, self.info, self._encoder = decode, info, encoder

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
        texts = self.texts(prompts, request)
        found: dict[int, Generated | ExportedModelError] = {}
        for number, one in enumerate(texts):
            if isinstance(one, InvalidText):
                if errors == "raise":
                    raise one.error(f"{name} {number + 1}" if len(prompts) > 1 else f"the {name}")
                found[number] = one.error(f"the {name}")
        good = sorted((one for one in texts if isinstance(one, WrittenText)), key=lambda one: len(one.prompt))
        for start in range(0, len(good), MAX_ROWS):
            group = good[start : start + MAX_ROWS]
            for one, result in zip(group, self._group(group, request, errors), strict=True):
                found[one.number] = result
        return [found[number] for number in range(len(prompts))]

    def stream(self, prompt: Any, request: Request, name: str) -> Stream:
        """The text behind one prompt, piece by piece."""
        (one,) = self.texts([prompt], request)
        if isinstance(one, InvalidText):
            raise one.error(f"the {name}")
        return Stream(self._pieces(one, request), one.result)

    def _pieces(self, one: WrittenText, request: Request) -> Iterator[str]:
        for _ in self._steps([one], request):
            if piece := one.piece():
                yield piece

    def _group(self, group: list[WrittenText], request: Request, errors: str) -> list[Generated | ExportedModelError]:
        try:
            for _ in self._steps(group, request):
                pass
        except (InputError, ArtifactFailedError) as error:
            if len(group) == 1:
                if errors == "raise":
                    raise
                return [error]
            # Written alone, only the text that caused the error fails.
            return [result for one in group for result in self._group([one.again()], request, errors)]
        return [one.result() for one in group]

    def _steps(self, group: Sequence[WrittenText], request: Request) -> Iterator[None]:
        """Write all texts of a group on, one token of each per step; with beams one text after the other."""
        if request.settings.beams.count > 1:
            for one in group:
                search = BeamSearch(self.decode, self.info, one.prompt, one.most, request.settings)
                for step in search.steps(logprobs=request.logprobs):
                    one.take(step)
                yield
            return
        loop = Loop(
            self.decode,
            self.info,
            [one.prompt for one in group],
            [one.most for one in group],
            request.settings,
            logprobs=request.logprobs,
            numbers=[one.number for one in group],
        )
        for steps in loop.steps():
            for step in steps:
                one = group[step.row]
                one.take(step)
                if one.finish is not None:
                    loop.end(step.row)
            yield

    def texts(self, prompts: Sequence[Any], request: Request) -> list[WrittenText | InvalidText]:
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
        if self.info.chat is None:
            raise InputTaskError(
                "the artifact has no chat template", "a text as prompt", "export a folder that has chat_template.jinja"
            )
        try:
            return render(self.info.chat, check_messages(messages))
        except InputTextError as error:
            return InvalidText(f"cannot be used: {error.found}", error.expected, error.remedy)

    def _text(self, number: int, found: Encoding | InvalidText, request: Request) -> WrittenText | InvalidText:
        if isinstance(found, InvalidText):
            return found
        ids, longest = list(found.ids), self.info.longest
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
        most = min(room, request.most or NEW_TOKENS)
        return WrittenText(self._encoder, number, ids, most, request.stop, request.logprobs)


def is_conversation(prompt: Any) -> bool:
    """Whether a prompt is a list of messages, and not of texts."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], Mapping)
