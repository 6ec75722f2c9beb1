"""Pairs of query and document inside of a chat template: one text, whose last tokens are kept when it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.format.manifest import PairTemplate

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True)
class Tokens:
    """Tokens that are not those of one text as they came, with the fields of an Encoding that the encoder reads."""

    ids: list[int]
    attention_mask: list[int]
    type_ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def joined(template: PairTemplate, pair: tuple[str, str]) -> str:
    """The one text."""
    query, document = (part.strip() for part in pair) if template.strip else pair
    return template.before + query + template.between + document + template.after


def cut(template: PairTemplate, encoding: Encoding, length: int, side: str) -> Encoding | Tokens:
    """At most `length` tokens: of a longer text those on the other side of `side`, the last ones the template's.

    This is the rule of sentence-transformers, which treats a text of exactly this length in the same way.
    """
    if len(encoding) < length:
        return encoding
    ids = _kept(encoding.ids, length, side)
    kept = min(len(template.last_ids), length)
    ids[length - kept :] = template.last_ids[len(template.last_ids) - kept :]
    return Tokens(ids, _kept(encoding.attention_mask, length, side), _kept(encoding.type_ids, length, side))


def _kept(numbers: Sequence[int], length: int, side: str) -> list[int]:
    return list(numbers[:length] if side == "right" else numbers[len(numbers) - length :])
