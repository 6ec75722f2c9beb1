"""Turn texts into input tensors with the artifact's tokenizer.

A text that is longer than the model admits is refused, truncated, or divided into overlapping windows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from runtime.errors import InputTextError
from runtime.format.manifest import Axis, PairTemplate, TextInfo, longest_text
from runtime.text.pair_template import cut, joined
from runtime.text.tokenizer import InvalidText, StoredTokenizer, Truncation

if TYPE_CHECKING:
    from tokenizers import Encoding

# Spaces that transformers removes before English punctuation and contractions.
_SPACES = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class TextEncoder:
    """Encodes texts for one artifact. Safe to use from several threads.

    Args:
        tokenizer_json: the content of `tokenizer.json`.
        info: the manifest's text section.
        input_names: the artifact's inputs; no others are made.
        sequence: the inputs' sequence axis, which limits the sizes.
    """

    def __init__(
        self, tokenizer_json: bytes, info: TextInfo, input_names: Sequence[str], sequence: Axis | None = None
    ) -> None:
        self.info = info
        self._names = [
            name for name in input_names if name != "token_type_ids" or info.rules is None or info.rules.token_types
        ]
        self._tokenizer = StoredTokenizer(tokenizer_json)
        self._side = info.rules.truncation_side if info.rules is not None else "right"
        # The length of all texts, for models that take one length alone.
        self._padded = (info.rules.padded_length if info.rules is not None else None) or 0
        # Without a mask a model cannot distinguish padding from text.
        self.pads = "attention_mask" in input_names or self._padded > 0
        self._least, self._step = (sequence.minimum, sequence.multiple) if sequence else (1, 1)
        # The maximum length of a text, in tokens.
        self.limit = longest_text(info, sequence)
        # The same by the inputs alone: queries or documents may be longer than other texts.
        self._admitted = longest_text(dataclasses.replace(info, max_length=2**24), sequence)
        # The number of special tokens that are added to a text, and to a pair.
        self.added = self._tokenizer.added
        self.special = self._tokenizer.special
        # Whether tokens mark that they continue a word; if not, words are separated by spaces only.
        self.marks_words = self._tokenizer.marks_words
        # Whether a text is always a pair of query and document, inside of a template.
        self.joins_pairs = info.pair_template is not None

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> dict[str, torch.Tensor]:
        """Tensors of int64, shape [number of texts, tokens of the longest text].

        Args:
            texts: at least one.
            truncate: cut texts at the model's maximum length; without it, a longer text is an error.

        Raises:
            InputTextError: no texts, a value that is not a string, or a text that is too long.
        """
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputTextError(f"texts is {texts!r}"[:200], "a list of at least one string")
        encodings = []
        for number, found in enumerate(self.tokens(texts, truncate=truncate), 1):
            if isinstance(found, InvalidText):
                raise found.error(f"text {number}")
            encodings.append(found)
        if not any(map(len, encodings)):
            raise InputTextError("the texts have no tokens", "at least one token")
        return self.tensors(encodings)

    def tokens(
        self, items: Sequence[Any], *, truncate: bool = False, limit: int | None = None
    ) -> list[Encoding | InvalidText]:
        """Each item's tokens, or why it cannot be used: it is not a text, or too long.

        Args:
            items: texts, or tuples of two.
            truncate: cut an item that is too long.
            limit: the maximum length in tokens; None: the model's.
        """
        most = self.limit if limit is None else min(limit, self._admitted)
        problems = [_text_problem(item) for item in items]
        good = [item for item, problem in zip(items, problems, strict=True) if problem is None]
        truncation = Truncation(most, self._side) if truncate else None
        template = self.info.pair_template
        if template is not None:
            pairs = iter(self._joined(template, [item for item in good if isinstance(item, tuple)], most, truncate))
            good = [item for item in good if not isinstance(item, tuple)]
        made = iter(self._tokenizer.encode(good, truncation, functools.partial(_check_length, most)))
        return [
            problem or (next(pairs) if template is not None and isinstance(item, tuple) else next(made))
            for item, problem in zip(items, problems, strict=True)
        ]

    def prompts(self, texts: Sequence[Any], *, special: bool) -> list[Encoding | InvalidText]:
        """The tokens of prompts of any length, with or without special tokens; or why there are none."""
        problems = [_text_problem(text) for text in texts]
        good = [text for text, problem in zip(texts, problems, strict=True) if problem is None]
        made = iter(self._tokenizer.encode(good, special=special))
        return [problem or next(made) for problem in problems]

    def _joined(
        self, template: PairTemplate, pairs: Sequence[tuple[str, str]], most: int, truncate: bool
    ) -> list[Encoding | InvalidText]:
        """The tokens of pairs inside of a template, or why they cannot be used."""

        def fitted(encoding: Encoding) -> Any:
            return cut(template, encoding, most, self._side) if truncate else _check_length(most, encoding)

        return self._tokenizer.encode([joined(template, pair) for pair in pairs], None, fitted, special=False)

    def windows(
        self, item: Any, *, length: int, stride: int, parts: tuple[str, str] | None
    ) -> list[Encoding] | InvalidText:
        """An item's tokens, in overlapping windows where they are too many.

        Args:
            item: a text; or a pair, of which one part is divided and the other is repeated in every window.
            length: the length of a window, in tokens.
            stride: the number of tokens that neighbouring windows share.
            parts: for a pair, the part to divide (`only_first` or `only_second`), and the name of the other part.
        """
        if (problem := _text_problem(item)) is not None:
            return problem
        (encoding,) = self._tokenizer.encode([item])
        if isinstance(encoding, InvalidText):
            return encoding
        if len(encoding) <= length:
            return [encoding]
        if parts is not None:
            kept = sum(one == (1 if parts[0] == "only_first" else 0) for one in encoding.sequence_ids)
            space = length - self.added[1] - kept
            # Each window must contain at least one new token.
            if space <= stride:
                return InvalidText(
                    f"has a {parts[1]} of {kept} tokens", f"at most {kept + space - stride - 1}", "shorten it"
                )
        truncation = Truncation(length, self._side, stride, parts[0] if parts else "longest_first")
        (encoding,) = self._tokenizer.encode([item], truncation)
        return encoding if isinstance(encoding, InvalidText) else [encoding, *encoding.overflowing]

    def tensors(self, encodings: Sequence[Encoding]) -> dict[str, torch.Tensor]:
        """Inputs by name, one row per encoding, padded to the smallest size that the model admits and that fits all."""
        longest = max(map(len, encodings))
        if self.pads:
            longest = -(-max(longest, self._least, self._padded) // self._step) * self._step
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
                # One tensor from lists: a call of torch per row would cost more.
                made[name] = torch.tensor(
                    [row + more if right else more + row for row, more in zip(rows, padding, strict=True)]
                )
        return made

    def width(self, encoding: Encoding) -> int:
        """The tokens that an encoding takes in a batch of its own, with the padding that all texts get."""
        return max(len(encoding), self._padded)

    def row_start(self, encoding: Encoding, width: int) -> int:
        """The position of an encoding's first token in a row of a padded batch."""
        return 0 if self.info.padding_side == "right" else width - len(encoding)

    def token(self, number: int) -> str:
        """The token of an id as the tokenizer stores it; `#` and the id if the tokenizer has none for it."""
        return self._tokenizer.token(number) or f"#{number}"

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        """The text of token ids, with or without special tokens."""
        text = self._tokenizer.decode(ids, special=special)
        if self.info.rules is not None and self.info.rules.clean_up_spaces:
            for spaced in _SPACES:
                text = text.replace(spaced, "'" if spaced == " ' " else spaced[1:])
        return text

    def join_tokens(self, tokens: Sequence[str]) -> str:
        """The text of tokens given as strings."""
        return self._tokenizer.join_tokens(tokens)


def _check_length(most: int, encoding: Encoding) -> Encoding | InvalidText:
    if len(encoding) <= most:
        return encoding
    remedy = "shorten it, or ask for truncation (truncate=True, --truncate)"
    return InvalidText(f"has {len(encoding)} tokens", f"at most {most}", remedy)


def _text_problem(item: Any) -> InvalidText | None:
    for text in item if isinstance(item, tuple) and len(item) == 2 else (item,):
        if not isinstance(text, str):
            return InvalidText(f"is {text!r}"[:100], "a string")
        try:
            # Surrogates represent bytes that are not UTF-8 (PEP 383).
            text.encode()
        except UnicodeEncodeError:
            return InvalidText("holds bytes that are not UTF-8", "text")
    return None
