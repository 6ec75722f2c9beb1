"""An upper bound on how much a tokenizer's normalisation and splitting can enlarge a text, from its `tokenizer.json`.

The bound is known before a text is tokenised, so that a text that would exhaust the memory can be refused.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.printing import shown

# By how much UTF-8 can grow at most (Unicode's annex 15); BERT's: accents apart, lower case, spaces around ideographs.
_UNICODE = {"NFC": 3, "NFD": 3, "NFKC": 11, "NFKD": 11, "Lowercase": 2, "BertNormalizer": 8, "ByteLevel": 2}


@dataclass(frozen=True)
class Growth:
    """A text of n bytes becomes at most n x `factor` + `extra` bytes."""

    factor: int = 1
    extra: int = 0

    def bound(self, count: int) -> int:
        """Of a text of `count` bytes."""
        return count * self.factor + self.extra

    def then(self, step: Growth) -> Growth:
        """After one more step."""
        return Growth(self.factor * step.factor, self.extra * step.factor + step.extra)


class InvalidTokenizer(ValueError):
    """A tokenizer that cannot be taken; the message says what is wrong with it."""


def growth_of(component: Mapping[str, Any]) -> Growth:
    """Of one component; of a sequence each has its own.

    Raises:
        InvalidTokenizer: a field that the bound follows from is missing or no string.
    """
    kind = component["type"]
    if kind == "Replace":
        new = utf8_size(component.get("content"), "content")
        # A regular expression may match nothing at all, and then does so between any two characters.
        old = utf8_size(component["pattern"].get("String", ""), "pattern")
        return Growth(max(1, -(-new // old))) if old else Growth(1 + new, new)
    if kind == "Prepend":
        return Growth(1, utf8_size(component.get("prepend"), "prepend"))
    if kind == "Precompiled":
        return Growth(_longest_mapping(component.get("precompiled_charsmap")))
    if kind == "Metaspace":
        # Before each piece, which has a byte at least; and in the place of spaces.
        mark = utf8_size(component.get("replacement"), "replacement")
        return Growth(1 + mark, mark)
    if kind == "ByteLevel" and "add_prefix_space" in component:
        # Bytes become characters of up to two; a space, which does, comes before each piece.
        return Growth(4, 2) if component["add_prefix_space"] else Growth(2)
    if kind in ("CTC", "BPEDecoder", "WordPiece"):
        # A space between tokens; where the delimiter is empty, between any two characters.
        return Growth(2, 1)
    return Growth(_UNICODE.get(kind, 1))


def compose(steps: Iterable[Growth]) -> Growth:
    """Of several steps, one after the other."""
    found = Growth()
    for step in steps:
        found = found.then(step)
    return found


def _longest_mapping(charsmap: Any) -> int:
    """Bytes of the longest string that SentencePiece's compiled table puts in the place of a character."""
    if not isinstance(charsmap, str):
        raise InvalidTokenizer("normalizer Precompiled has no table")
    table = base64.b64decode(charsmap, validate=True)
    strings = table[4 + int.from_bytes(table[:4], "little") :]
    return max(1, *map(len, strings.split(b"\0")))


def utf8_size(text: Any, name: str) -> int:
    """Bytes of a string; `name` is what it is called where it is none.

    Raises:
        InvalidTokenizer: it is no string.
    """
    if not isinstance(text, str):
        raise InvalidTokenizer(f"{name} is {shown(text)}, no string")
    return len(text.encode("utf-8", "surrogatepass"))
