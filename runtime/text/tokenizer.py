"""Run a stored tokenizer, which is not trusted. The only module that imports the package tokenizers.

The size that a text can reach is bounded before it is tokenised. Whatever the package raises, including a panic of its
Rust code, becomes an error of the text that caused it.

Limits: Rust code cannot be interrupted. The regular expression engine gives up a match that backtracks after ten
million steps at one position of the text (a panic, and so an error of that text). An expression that stays just below
this limit at every position of a long text keeps its thread busy for as long as that takes. If this matters, accept
only signed artifacts, or tokenise in a separate process that can be ended. A panic also writes to standard error.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from runtime.errors import ExtraMissingError, InputTextError, ManifestDamagedError
from runtime.format.manifest import TOKENIZER_FILE
from runtime.text.growth import compose
from runtime.text.tokenizer_file import read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

T = TypeVar("T")
# A text, or two that belong together.
Item = str | tuple[str, str]

# Limit for one text: a million characters are a thick book, and far more than any model reads.
MAX_CHARACTERS = 2**20
# Limit for the normalised size of the texts that are tokenised at once: tokens take some 600 bytes per byte of text.
MAX_BYTES = 2**22
# Limit for a text after one step of the normaliser, which takes some 60 bytes per byte of text.
MAX_STEP_BYTES = 2**24


@dataclass(frozen=True)
class InvalidText:
    """Why a text cannot be used. `what` follows the text's name: "text 2 has 302 tokens"."""

    what: str
    expected: str
    remedy: str = ""

    def error(self, subject: str = "the text") -> InputTextError:
        """The corresponding error."""
        return InputTextError(f"{subject} {self.what}", self.expected, self.remedy)


@dataclass(frozen=True)
class Truncation:
    """How long texts are cut: to windows of `length` tokens, of which neighbouring windows share `stride`."""

    length: int
    side: Literal["left", "right"]
    stride: int = 0
    strategy: str = "longest_first"


class StoredTokenizer:
    """A tokenizer that came with an artifact. Safe to use from several threads.

    Args:
        content: the content of `tokenizer.json`.

    Raises:
        ManifestDamagedError: it is not a tokenizer of a known kind.
        ExtraMissingError: the package `tokenizers` is not installed.
    """

    def __init__(self, content: bytes) -> None:
        self._file = read_tokenizer(content)
        self._growth = compose([growth for _, growth in self._file.normalizers])
        self._tokenizer = _load(self._file.text)
        self._lock = threading.Lock()
        # The number of special tokens that are added to a text, and to a pair.
        self.added = self._tokenizer.num_special_tokens_to_add(False), self._tokenizer.num_special_tokens_to_add(True)
        # The ids of special tokens.
        self.special = {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        # Whether tokens mark that they continue a word; if not, words are separated by spaces only.
        self.marks_words = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))

    def encode(
        self,
        items: Sequence[Item],
        truncation: Truncation | None = None,
        check: Callable[[Encoding], Encoding | InvalidText] | None = None,
        special: bool = True,
    ) -> list[Encoding | InvalidText]:
        """Each item's tokens, or why it cannot be used.

        Args:
            items: texts and pairs, of strings that can be encoded in UTF-8.
            truncation: how items that are too long are cut; None: not at all.
            check: applied to each item's tokens at once, so that those of a rejected item do not stay in memory.
            special: whether the tokenizer adds its special tokens.
        """
        found: list[Encoding | InvalidText] = []
        group: list[Item] = []
        remaining = MAX_BYTES

        def finish() -> None:
            made = self._batch(group, truncation, special)
            found.extend(one if isinstance(one, InvalidText) or check is None else check(one) for one in made)
            group.clear()

        for item in items:
            size = self._size_bound(item)
            if isinstance(size, InvalidText) or size > remaining:
                finish()
                remaining = MAX_BYTES
            if isinstance(size, InvalidText):
                found.append(size)
            else:
                group.append(item)
                remaining -= size
        finish()
        return found

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        """The text of token ids, with or without special tokens.

        Raises:
            InputTextError: the tokenizer fails on them.
        """
        return str(_call(lambda: self._tokenizer.decode(list(ids), skip_special_tokens=not special)))

    def token(self, number: int) -> str | None:
        """The token of an id as it is stored; None if there is none."""
        found = self._tokenizer.id_to_token(number)
        return None if found is None else str(found)

    def join_tokens(self, tokens: Sequence[str]) -> str:
        """The text of tokens given as strings; raises what `decode` raises."""
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else str(_call(lambda: decoder.decode(list(tokens))))

    @functools.cached_property
    def _truncating(self) -> Tokenizer:
        # A separate tokenizer: changing the truncation of the common one would not be safe with threads.
        return _load(self._file.text)

    @functools.cached_property
    def _steps(self) -> list[Any]:
        """The normaliser's steps, each loaded separately."""
        empty = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
        return [
            _load(json.dumps({"version": "1.0", "added_tokens": [], "normalizer": step, "model": empty})).normalizer
            for step, _ in self._file.normalizers
        ]

    def _size_bound(self, item: Item) -> int | InvalidText:
        """An upper bound in bytes on an item's normalised size, or why it cannot be used."""
        texts = item if isinstance(item, tuple) else (item,)
        longest = max(map(len, texts))
        if longest > MAX_CHARACTERS:
            return InvalidText(f"has {longest} characters", f"at most {MAX_CHARACTERS}", "divide it")
        size = sum(self._file.splitting.bound(self._growth.bound(len(text.encode()))) for text in texts)
        # If the general bound is too large, this text is normalised step by step to find its actual size.
        if size > MAX_BYTES:
            try:
                size = sum(self._file.splitting.bound(self._normalized(text)) for text in texts)
            except InputTextError as error:
                return InvalidText(f"cannot be tokenised: {error.found}"[:200], "a text that the tokenizer takes")
        if size > MAX_BYTES:
            return InvalidText(f"may become {size} bytes when it is tokenised", f"at most {MAX_BYTES}", "divide it")
        return size

    def _normalized(self, text: str) -> int:
        """The size of the normalised text in bytes; or the bound of the first step that could exceed its limit."""
        for step, (_, growth) in zip(self._steps, self._file.normalizers, strict=True):
            most = growth.bound(len(text.encode()))
            if most > MAX_STEP_BYTES:
                return most
            text = _call(functools.partial(step.normalize_str, text))
        return len(text.encode())

    def _batch(self, items: list[Item], truncation: Truncation | None, special: bool) -> list[Encoding | InvalidText]:
        if not items:
            return []
        try:
            return _call(lambda: self._encode(list(items), truncation, special))
        except InputTextError as error:
            if len(items) == 1:
                return [InvalidText(f"cannot be tokenised: {error.found}"[:200], "a text that the tokenizer takes")]
        return [found for item in items for found in self._batch([item], truncation, special)]

    def _encode(self, items: list[Item], truncation: Truncation | None, special: bool) -> list[Encoding | InvalidText]:
        if truncation is None:
            return list(self._tokenizer.encode_batch(items, add_special_tokens=special))
        with self._lock:
            self._truncating.enable_truncation(
                truncation.length, stride=truncation.stride, strategy=truncation.strategy, direction=truncation.side
            )
            return list(self._truncating.encode_batch(items, add_special_tokens=special))


def _load(text: str) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ExtraMissingError(
            "text input needs the package tokenizers, which is not installed", "", "pip install tokenizers"
        ) from None
    try:
        tokenizer: Tokenizer = _call(lambda: Tokenizer.from_str(text))
    except InputTextError as error:
        raise ManifestDamagedError(f"damaged {TOKENIZER_FILE}: {error.found}") from error
    # The file may contain padding and truncation settings of its training.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _call(function: Callable[[], T]) -> T:
    """Call the package, and turn whatever it raises into InputTextError.

    Raises:
        InputTextError: the call raised an error.
    """
    try:
        return function()
    # The package raises a plain Exception, for example for a word outside a vocabulary without an unknown token. A
    # panic of its Rust code is a BaseException whose class cannot be imported. Ctrl-C is neither of these.
    except BaseException as error:  # noqa: BLE001
        if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
            raise InputTextError(str(error) or type(error).__name__) from error
        raise
