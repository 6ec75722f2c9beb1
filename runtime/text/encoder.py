"""Text in, input tensors out, with the tokenizer that the artifact carries.

In: the content of `tokenizer.json`, the manifest's text section, texts or pairs of texts. Out: their tokens, whole, cut
or as overlapping windows; tensors by input name, padded to the longest. Refuses empty lists, and texts longer than the
model admits, unless cutting was asked for. The only room that imports `tokenizers`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runtime.errors import ExtraMissingError, InputTextError, ManifestDamagedError
from runtime.manifest import TOKENIZER_FILE, Axis, TextInfo, longest_text

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# A text, or two that belong together.
Item = str | tuple[str, str]
# English, as transformers removes them.
_SPACES = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True)
class Flaw:
    """Why a text cannot be taken. `what` follows the text's name: "text 2 has 302 tokens"."""

    what: str
    expected: str
    remedy: str = ""

    def error(self, subject: str = "the text") -> InputTextError:
        """The error that says so."""
        return InputTextError(f"{subject} {self.what}", self.expected, self.remedy)


class TextEncoder:
    """Encodes texts for one artifact. Safe to use from several threads.

    Args:
        tokenizer_json: the content of `tokenizer.json`.
        info: the manifest's text section.
        input_names: the artifact's inputs; only these are made.
        sequence: the axis of tokens, where its sizes are bounded.
    """

    def __init__(
        self, tokenizer_json: bytes, info: TextInfo, input_names: Sequence[str], sequence: Axis | None = None
    ) -> None:
        self.info = info
        self._json = tokenizer_json
        self._names = [
            name for name in input_names if name != "token_type_ids" or info.rules is None or info.rules.token_types
        ]
        self._whole = _tokenizer(tokenizer_json)
        self._lock = threading.Lock()
        # Without a mask a model cannot tell padding from text.
        self.pads = "attention_mask" in input_names
        self._least, self._step = (sequence.minimum, sequence.multiple) if sequence else (1, 1)
        # The longest text in tokens.
        self.limit = longest_text(info, sequence)
        # Tokens that are added to a text, and to a pair.
        self.added = self._whole.num_special_tokens_to_add(False), self._whole.num_special_tokens_to_add(True)
        # Ids of tokens with a meaning of their own.
        self.special = {number for number, token in self._whole.get_added_tokens_decoder().items() if token.special}
        # Whether tokens say that they continue a word; if not, only spaces part words.
        self.marks_words = bool(getattr(self._whole.model, "continuing_subword_prefix", None))

    @functools.cached_property
    def _cut(self) -> Tokenizer:
        # One of its own: changing truncation between calls would not be safe with threads.
        return _tokenizer(self._json)

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> dict[str, torch.Tensor]:
        """Tensors of int64, shape [number of texts, tokens of the longest text].

        Args:
            texts: at least one.
            truncate: cut texts at the model's length; without it, a longer one is an error.

        Raises:
            InputTextError: no text, no string, or a text that is too long.
        """
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputTextError(f"texts is {texts!r}"[:200], "a list of at least one string")
        encodings = []
        for number, found in enumerate(self.tokens(texts, truncate=truncate), 1):
            if isinstance(found, Flaw):
                raise found.error(f"text {number}")
            encodings.append(found)
        if not any(map(len, encodings)):
            raise InputTextError("the texts have no tokens", "at least one token")
        return self.tensors(encodings)

    def tokens(self, items: Sequence[Any], *, truncate: bool = False) -> list[Encoding | Flaw]:
        """Each item's tokens, or why there are none: it is no text, or too long."""
        flaws = [_flaw(item) for item in items]
        good = [item for item, flaw in zip(items, flaws, strict=True) if flaw is None]
        made = iter(self._encode(good, self.limit if truncate else None))
        return [self._fitting(next(made)) if flaw is None else flaw for flaw in flaws]

    def _fitting(self, encoding: Encoding | Flaw) -> Encoding | Flaw:
        if isinstance(encoding, Flaw) or len(encoding) <= self.limit:
            return encoding
        remedy = "shorten it, or ask for truncation (truncate=True, --truncate)"
        return Flaw(f"has {len(encoding)} tokens", f"at most {self.limit}", remedy)

    def windows(self, item: Any, *, length: int, stride: int, parts: tuple[str, str] | None) -> list[Encoding] | Flaw:
        """An item's tokens, in overlapping windows where they are too many.

        Args:
            item: a text, or a pair of which one part is divided and the other stands in every window.
            length: of a window, in tokens.
            stride: the tokens that neighbours share.
            parts: for a pair, `only_first` or `only_second`, which is divided, and the name of the other one.
        """
        if (flaw := _flaw(item)) is not None:
            return flaw
        (encoding,) = self._encode([item], None)
        if isinstance(encoding, Flaw):
            return encoding
        if len(encoding) <= length:
            return [encoding]
        if parts is not None:
            kept = sum(one == (1 if parts[0] == "only_first" else 0) for one in encoding.sequence_ids)
            room = length - self.added[1] - kept
            # Each window has to bring something new.
            if room <= stride:
                return Flaw(f"has a {parts[1]} of {kept} tokens", f"at most {kept + room - stride - 1}", "shorten it")
        (encoding,) = self._encode([item], length, stride, parts[0] if parts else "longest_first")
        return encoding if isinstance(encoding, Flaw) else [encoding, *encoding.overflowing]

    def tensors(self, encodings: Sequence[Encoding]) -> dict[str, torch.Tensor]:
        """Inputs by name, a row an encoding, padded to the longest, or to what the model admits above that."""
        longest = max(map(len, encodings))
        if self.pads:
            longest = -(-max(longest, self._least) // self._step) * self._step
        columns = {
            "input_ids": ("ids", self.info.pad_id),
            "attention_mask": ("attention_mask", 0),
            "token_type_ids": ("type_ids", self.info.pad_type_id),
        }
        made = {}
        for name in self._names:
            if name in columns:
                attribute, fill = columns[name]
                rows = [getattr(one, attribute) for one in encodings]
                padding = [[fill] * (longest - len(row)) for row in rows]
                right = self.info.padding_side == "right"
                # One call for all rows: a call of torch costs more than joining lists.
                made[name] = torch.tensor(
                    [row + more if right else more + row for row, more in zip(rows, padding, strict=True)]
                )
        return made

    def first_place(self, encoding: Encoding, width: int) -> int:
        """Where an encoding's row begins in a batch of a width."""
        return 0 if self.info.padding_side == "right" else width - len(encoding)

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        """The text of tokens, with or without special ones."""
        text = str(self._whole.decode(list(ids), skip_special_tokens=not special))
        if self.info.rules is not None and self.info.rules.clean_up_spaces:
            for spaced in _SPACES:
                text = text.replace(spaced, "'" if spaced == " ' " else spaced[1:])
        return text

    def joined(self, tokens: Sequence[str]) -> str:
        """The text of tokens given as strings."""
        decoder = self._whole.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    def _encode(
        self, items: Sequence[Item], length: int | None, stride: int = 0, strategy: str = "longest_first"
    ) -> list[Encoding | Flaw]:
        if not items:
            return []
        try:
            if length is None:
                return list(self._whole.encode_batch(list(items)))
            side = self.info.rules.truncation_side if self.info.rules is not None else "right"
            with self._lock:
                self._cut.enable_truncation(length, stride=stride, strategy=strategy, direction=side)
                return list(self._cut.encode_batch(list(items)))
        # The package raises a bare Exception, for a word that a vocabulary without an unknown token lacks.
        except Exception as error:  # noqa: BLE001
            if len(items) == 1:
                return [Flaw(f"cannot be tokenised: {error}"[:200], "words that the tokenizer knows")]
            return [found for item in items for found in self._encode([item], length, stride, strategy)]


def _flaw(item: Any) -> Flaw | None:
    for text in item if isinstance(item, tuple) and len(item) == 2 else (item,):
        if not isinstance(text, str):
            return Flaw(f"is {text!r}"[:100], "a string")
        try:
            # Surrogates stand for bytes that were no UTF-8 (PEP 383).
            text.encode()
        except UnicodeEncodeError:
            return Flaw("holds bytes that are no UTF-8", "text")
    return None


def _tokenizer(tokenizer_json: bytes) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ExtraMissingError(
            "the package tokenizers is not installed", "it, to take text", "pip install tokenizers"
        ) from None
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    # The package raises a bare Exception for a file it cannot parse.
    except Exception as error:
        raise ManifestDamagedError(f"damaged {TOKENIZER_FILE}: {error}") from error
    # The file may carry settings of its training run (a fixed padding, a shorter length).
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
