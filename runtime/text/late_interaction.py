"""Late interaction (ColBERT): a vector per token, for queries and for documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from runtime.errors import InputTaskError, InputTextError
from runtime.format.manifest import Manifest, TextSide
from runtime.text.batched import OneWindowTask, Outputs
from runtime.text.encoder import TextEncoder
from runtime.text.pair_template import Tokens
from runtime.text.task_methods import token_outputs
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

Side = Literal["query", "document"]


def text_side(manifest: Manifest, side: Side | None) -> TextSide:
    """How texts of a side are prepared; None: with the default prompt, otherwise mostly as documents.

    Raises:
        InputTaskError: the manifest does not say.
        InputTextError: there is no such side.
    """
    sides = manifest.late_interaction
    if side not in (None, "query", "document"):
        raise InputTextError(f"side is {side!r}"[:100], "query or document")
    if manifest.text is not None and token_outputs(manifest) is not None:
        # Queries and documents are treated alike.
        rules = manifest.text.rules
        return TextSide(rules.prompt if rules is not None else "", manifest.text.max_length)
    if sides is None or manifest.text is None:
        raise InputTaskError(
            "embed_tokens needs the settings of queries and documents, which the file does not have",
            "a file with a tokenizer",
            "export the model again, with its tokenizer",
        )
    if side is None:
        rules = manifest.text.rules
        return TextSide(rules.prompt if rules is not None else "", manifest.text.max_length, sides.document.skipped_ids)
    return sides.query if side == "query" else sides.document


class TokenVectorsTask(OneWindowTask):
    """Return the vectors of a text's tokens.

    Args:
        encoder: the artifact's encoder.
        name: the output's name.
        side: how texts are prepared, and which vectors count.
        truncate: cut texts that are too long.
        first: whether the first token's vector counts.
    """

    def __init__(self, encoder: TextEncoder, name: str, side: TextSide, truncate: bool, first: bool = True) -> None:
        super().__init__(encoder, truncate)
        self._first = first
        self._name = name
        self._side = side
        self._skipped = frozenset(side.skipped_ids)

    def windows(self, items: Sequence[Any]) -> list[list[Encoding] | InvalidText]:
        """Each item's tokens as its only window, or why it cannot be used."""
        found = self.encoder.tokens(items, truncate=self._truncate, limit=self._side.max_length)
        checked = [self._window(item, one) for item, one in zip(items, found, strict=True)]
        return [one if isinstance(one, InvalidText) else [self._expanded(one[0])] for one in checked]

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> torch.Tensor:
        """The vectors that count, [tokens, size]."""
        vectors = outputs[self._name]
        if not self._first:
            return vectors[1:]
        if not self._skipped.intersection(encoding.ids):
            return vectors
        return vectors[[place for place, number in enumerate(encoding.ids) if number not in self._skipped]]

    def _expanded(self, encoding: Encoding) -> Any:
        added = self._side.expansion
        count = 0 if added is None else added.length - len(encoding)
        if added is None or count <= 0:
            return encoding
        return Tokens(
            [*encoding.ids, *[added.token_id] * count],
            [*encoding.attention_mask, *[int(added.attend)] * count],
            [*encoding.type_ids, *[self.encoder.info.pad_type_id] * count],
        )
