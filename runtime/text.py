"""Text in, input tensors out, with the tokenizer that the artifact carries.

In: the content of `tokenizer.json`, the manifest's text section, texts. Out: tensors by input name, padded
to the longest text. Refuses empty lists and texts longer than the model admits, unless cutting was asked
for. The only room that imports `tokenizers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from runtime.errors import ExtraMissingError, InputTextError, ManifestDamagedError
from runtime.manifest import TOKENIZER_FILE, TextInfo

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextEncoder:
    """Encodes texts for one artifact.

    Args:
        tokenizer_json: the content of `tokenizer.json`.
        info: the manifest's text section.
        input_names: the artifact's inputs; only these are made.
    """

    def __init__(self, tokenizer_json: bytes, info: TextInfo, input_names: Sequence[str]) -> None:
        self._info = info
        self._names = input_names
        # Two tokenizers, set up once: changing truncation between calls would not be safe with threads.
        self._whole, self._cut = _tokenizer(tokenizer_json), _tokenizer(tokenizer_json)
        self._cut.enable_truncation(info.max_length)

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
        for number, text in enumerate(texts, 1):
            # Surrogates stand for bytes that were no UTF-8 (PEP 383).
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InputTextError(f"text {number} holds bytes that are no UTF-8", "text")
        encodings = (self._cut if truncate else self._whole).encode_batch(list(texts))
        longest = max(len(encoding) for encoding in encodings)
        if longest > self._info.max_length:
            index = next(i for i, e in enumerate(encodings) if len(e) == longest)
            raise InputTextError(
                f"text {index + 1} has {longest} tokens",
                f"at most {self._info.max_length}",
                "shorten it, or ask for truncation (truncate=True, --truncate)",
            )
        if longest == 0:
            raise InputTextError("the texts have no tokens", "at least one token")
        columns = {
            "input_ids": ([e.ids for e in encodings], self._info.pad_id),
            "attention_mask": ([e.attention_mask for e in encodings], 0),
            "token_type_ids": ([e.type_ids for e in encodings], self._info.pad_type_id),
        }
        return {name: self._pad(*columns[name], longest) for name in self._names if name in columns}

    def _pad(self, rows: list[list[int]], value: int, length: int) -> torch.Tensor:
        tensor = torch.full((len(rows), length), value)
        for i, row in enumerate(rows):
            if self._info.padding_side == "right":
                tensor[i, : len(row)] = torch.tensor(row)
            else:
                tensor[i, length - len(row) :] = torch.tensor(row)
        return tensor


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
