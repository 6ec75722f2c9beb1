"""How a speech recogniser's outputs become text: read from the folder's tokenizer, and compared with it.

Only the tokenizers that decode CTC outputs are known: that of characters (Wav2Vec2's), and those of pieces, which
tokenizer.json joins. With another one, or one that decodes otherwise, the file gives the outputs alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoTokenizer

from exporter.config.request import ExportRequest
from exporter.loading.hub import ModelFiles
from exporter.loading.tokenizer import TokenizerPart, has_tokenizer
from runtime.audio.ctc import transcript
from runtime.errors import ExportedModelError
from runtime.format.manifest import CtcCharacters, CtcInfo
from runtime.text import TextEncoder

# The classes of transformers whose decoding is that of `runtime.audio.ctc`, in all its releases.
_CHARACTERS = ("Wav2Vec2CTCTokenizer",)
_PIECES = ("ParakeetTokenizer", "ParakeetTokenizerFast", "LasrTokenizer", "LasrTokenizerFast")
# A manifest holds no more.
_MOST_TOKENS = 2**16
_LANGUAGE_MODEL = ("alphabet.json", "language_model/attrs.json", "language_model/unigrams.txt")


def read_ctc(
    files: ModelFiles, request: ExportRequest, config: Any, part: TokenizerPart
) -> tuple[CtcInfo | None, list[str]]:
    """How to decode, and notes; None if that is not known, and a note that says why.

    Args:
        files: the model's.
        request: what the user allows.
        config: the model's configuration.
        part: the tokenizer that the file carries.
    """
    if not has_tokenizer(files):
        return None, [_without("the folder has no tokenizer")]
    try:
        tokenizer = files.load(AutoTokenizer, trust_remote_code=request.trust_remote_code)
    except ExportedModelError as error:
        return None, [_without(f"its tokenizer cannot be loaded ({error.found[:200]})")]
    name = type(tokenizer).__name__
    if not type(tokenizer).__module__.startswith("transformers.") or name not in (*_CHARACTERS, *_PIECES):
        return None, [_without(f"how {name} decodes is not known")]
    vocabulary = int(config.vocab_size)
    step = getattr(config, "inputs_to_logits_ratio", None)
    info = CtcInfo(
        blank_id=int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else -1),
        samples_per_step=int(step) if isinstance(step, int) and step > 0 else None,
        characters=_characters(tokenizer, vocabulary) if name in _CHARACTERS else None,
    )
    join = _joining(part)
    if info.characters is None and join is None:
        return None, [_without(part.note)]
    reason = _difference(tokenizer, info, vocabulary, join or str)
    if reason is not None:
        return None, [_without(reason)]
    notes = [f"transcripts: the best token of each step, decoded as {name} does"]
    if any(files.has(one) for one in _LANGUAGE_MODEL):
        notes.append("transcripts are made without the folder's language model, so they differ from those with it")
    return info, notes


def _without(reason: str) -> str:
    return f"no transcripts, only the outputs: {reason}"


def _characters(tokenizer: Any, vocabulary: int) -> CtcCharacters:
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(vocabulary, _MOST_TOKENS))))
    return CtcCharacters(
        tokens=tuple(str(token) for token in tokens),
        blank=None if tokenizer.pad_token is None else str(tokenizer.pad_token),
        delimiter=tokenizer.word_delimiter_token,
        space=tokenizer.replace_word_delimiter_char,
        lower_case=bool(tokenizer.do_lower_case),
        clean_up_spaces=bool(tokenizer.clean_up_tokenization_spaces),
    )


def _joining(part: TokenizerPart) -> Callable[[Sequence[int]], str] | None:
    if part.content is None or part.info is None:
        return None
    encoder = TextEncoder(part.content, part.info, ("input_ids",))
    return lambda ids: encoder.decode(ids, special=True)


def _difference(tokenizer: Any, info: CtcInfo, vocabulary: int, join: Callable[[Sequence[int]], str]) -> str | None:
    """Decode sequences in which tokens repeat with both; why the file could not, or None."""
    if info.characters is not None and len(info.characters.tokens) < vocabulary:
        return f"its vocabulary has {vocabulary} characters, and the format holds {_MOST_TOKENS}"
    drawn = random.Random(7)
    common = [info.blank_id, *(drawn.randrange(vocabulary) for _ in range(6))]
    delimiter = getattr(tokenizer, "word_delimiter_token_id", None)
    common += [delimiter] * 2 if isinstance(delimiter, int) and 0 <= delimiter < vocabulary else []
    common = [number for number in common if 0 <= number < vocabulary]
    for length in (0, 1, 7, 60, 300):
        for spread in (common, range(vocabulary)):
            ids = [number for _ in range(length) for number in [drawn.choice(spread)] * drawn.choice((1, 1, 2, 3))]
            try:
                own = tokenizer.decode(ids, skip_special_tokens=False)
                found = transcript(ids, info, 1, None, join).text
            # Whatever a tokenizer raises for ids that it does not have.
            except Exception as error:  # noqa: BLE001
                return f"its tokenizer cannot decode: {' '.join(str(error).split())[:150]}"
            if own != found:
                return f"its tokenizer decodes {ids[:6]} as {own[:30]!r}, not as {found[:30]!r}"
    return None
