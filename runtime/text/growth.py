"""An upper bound on how much a tokenizer's normalisation and splitting can enlarge a text, from its `tokenizer.json`.

The bound is known before a text is tokenised, so that a text that would exhaust the memory can be refused.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.printing import shown

# The maximum growth of UTF-8 text (Unicode's annex 15). BertNormalizer separates accents, converts to lower case and
# puts spaces around ideographs.
_UNICODE = {"NFC": 3, "NFD": 3, "NFKC": 11, "NFKD": 11, "Lowercase": 2, "BertNormalizer": 8, "ByteLevel": 2}


@dataclass(frozen=True)
class Growth:
    """A text of n bytes becomes at most n x `factor` + `extra` bytes."""

    factor: int = 1
    extra: int = 0

    def bound(self, count: int) -> int:
        """The maximum size of the result for a text of `count` bytes."""
        return count * self.factor + self.extra

    def then(self, step: Growth) -> Growth:
        """The growth of this step followed by another."""
        return Growth(self.factor * step.factor, self.extra * step.factor + step.extra)


class InvalidTokenizer(ValueError):
    """The tokenizer cannot be used; the message says why."""


def growth_of(component: Mapping[str, Any]) -> Growth:
    """The growth of one component, which must not be a sequence.

    Raises:
        InvalidTokenizer: a field that the bound depends on is missing or not a string.
    """
    kind = component["type"]
    if kind == "Replace":
        new = utf8_size(component.get("content"), "content")
        # A regular expression may match the empty string, between any two characters.
        old = utf8_size(component["pattern"].get("String", ""), "pattern")
        return Growth(max(1, -(-new // old))) if old else Growth(1 + new, new)
    if kind == "Prepend":
        return Growth(1, utf8_size(component.get("prepend"), "prepend"))
    if kind == "Precompiled":
        return Growth(_longest_mapping(component.get("precompiled_charsmap")))
    if kind == "Metaspace":
        # The mark is put before each piece, which has at least one byte, and replaces spaces.
        mark = utf8_size(component.get("replacement"), "replacement")
        return Growth(1 + mark, mark)
    if kind == "ByteLevel" and "add_prefix_space" in component:
        # Each byte becomes a character of up to two bytes; a space, which becomes two, may precede each piece.
        return Growth(4, 2) if component["add_prefix_space"] else Growth(2)
    if kind in ("CTC", "BPEDecoder", "WordPiece"):
        # A space is put between tokens; if the delimiter is empty, between any two characters.
        return Growth(2, 1)
    return Growth(_UNICODE.get(kind, 1))


def compose(steps: Iterable[Growth]) -> Growth:
    """The growth of several steps, applied in order."""
    found = Growth()
    for step in steps:
        found = found.then(step)
    return found


def _longest_mapping(charsmap: Any) -> int:
    """The size in bytes of the longest replacement of a character in SentencePiece's compiled table."""
    if not isinstance(charsmap, str):
        raise InvalidTokenizer("normalizer Precompiled has no table")
    table = base64.b64decode(charsmap, validate=True)
    strings = table[4 + int.from_bytes(table[:4], "little") :]
    return max(1, *map(len, strings.split(b"\0")))


def utf8_size(text: Any, name: str) -> int:
    """The size of a string in UTF-8; `name` is used in the error.

    Raises:
        InvalidTokenizer: it is not a string.
    """
    if not isinstance(text, str):
        raise InvalidTokenizer(f"{name} is {shown(text)}, not a string")
    return len(text.encode("utf-8", "surrogatepass"))
