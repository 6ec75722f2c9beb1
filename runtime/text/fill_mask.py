"""Fill-mask: the most probable tokens for each mask of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.text.batched import OneWindowTask, Outputs, positive
from runtime.text.encoder import TextEncoder
from runtime.text.results import Candidate
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

TOP_K = 5


class FillMaskTask(OneWindowTask):
    """Choose the most probable tokens for each mask.

    Args:
        encoder: the artifact's encoder.
        mask: the mask token's id and string.
        top_k: the number of candidates per mask, at most the size of the vocabulary.
        truncate: cut texts that are too long.
    """

    def __init__(self, encoder: TextEncoder, mask: tuple[int, str], top_k: int, truncate: bool) -> None:
        super().__init__(encoder, truncate)
        self._id, self._name = mask
        self._top_k = positive("top_k", top_k)

    def problem(self, encoding: Encoding) -> InvalidText | None:
        """The problem of a text without a mask token."""
        return None if self._id in encoding.ids else InvalidText(f"holds no {self._name}", "one or more, to fill in")

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> list[list[Candidate]]:
        """The candidates for each mask."""
        ids = list(encoding.ids)
        places = [place for place, number in enumerate(ids) if number == self._id]
        scores = outputs["logits"][places].softmax(-1)
        best = scores.topk(min(self._top_k, scores.shape[-1]))
        return [
            [self._candidate(ids, place, number, score, len(places) > 1) for score, number in zip(*row, strict=True)]
            for place, *row in zip(places, best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _candidate(self, ids: list[int], place: int, number: int, score: float, several: bool) -> Candidate:
        filled = [one for one in (*ids[:place], number, *ids[place + 1 :]) if one != self.encoder.info.pad_id]
        # Special tokens are left out, unless other masks of the text remain.
        text = self.encoder.decode(filled, special=several)
        return Candidate(self.encoder.decode([number], special=True), number, score, text)
