"""Token classification: label tokens and join them to words or entities, by transformers' aggregation strategies.

- `none`: each token by itself.
- `simple`: neighbouring tokens of one label are joined; a label that begins with `B-` begins a new entity.
- `first`, `average`, `max`: each word first gets one label, from its first token, from the mean of its tokens' scores,
  or from the token with the highest score; then words are joined as in `simple`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from runtime.errors import InputTextError
from runtime.text.batched import OneWindowTask, Outputs
from runtime.text.encoder import TextEncoder
from runtime.text.results import Tag
from runtime.text.tokenizer import InvalidText

if TYPE_CHECKING:
    from tokenizers import Encoding

Aggregation = Literal["none", "simple", "first", "average", "max"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)


@dataclass(frozen=True)
class _Token:
    word: str
    start: int
    end: int
    continues: bool
    scores: Sequence[float]


class TokenClassificationTask(OneWindowTask):
    """Label the tokens of a text and join them to tags.

    Args:
        encoder: the artifact's encoder.
        labels: the model's labels, in order.
        aggregation: how tokens are joined.
        ignore: labels that are left out.
        unknown_id: the id of the token for words outside the vocabulary.
        stride: divide texts that are too long into windows that share so many tokens; None: do not divide them.
        truncate: cut texts that are too long.

    Raises:
        InputTextError: options that contradict each other.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        labels: Sequence[str],
        aggregation: Aggregation,
        ignore: Collection[str],
        unknown_id: int | None,
        stride: int | None,
        truncate: bool,
    ) -> None:
        super().__init__(encoder, truncate)
        most = encoder.limit - encoder.added[0] - 1
        if aggregation not in AGGREGATIONS:
            raise InputTextError(f"aggregation is {aggregation!r}", f"one of {', '.join(AGGREGATIONS)}")
        if stride is not None:
            if not isinstance(stride, int) or not 0 <= stride <= most:
                raise InputTextError(f"stride is {stride!r}", f"0 to {most} tokens")
            if truncate or aggregation == "none":
                other = "truncation" if truncate else "aggregation none"
                raise InputTextError(f"a stride together with {other}", "only one of the two")
        self._labels = labels
        self._aggregation = aggregation
        self._ignore = ignore
        self._unknown_id = unknown_id
        self._stride = stride

    def windows(self, items: Sequence[Any]) -> list[list[Encoding] | InvalidText]:
        """Each text's windows, or why it cannot be used."""
        if self._stride is None:
            return super().windows(items)
        return [self._divided(item, self._stride) for item in items]

    def _divided(self, item: Any, stride: int) -> list[Encoding] | InvalidText:
        found = self.encoder.windows(item, length=self.encoder.limit, stride=stride, parts=None)
        if isinstance(found, InvalidText):
            return found
        first = self._window(item, found[0])
        return first if isinstance(first, InvalidText) else found

    def window_result(self, item: str, encoding: Encoding, outputs: Outputs) -> list[Tag]:
        """The tags of one window."""
        tokens = self._tokens(item, encoding, outputs["logits"].softmax(-1).tolist())
        if self._aggregation in ("none", "simple"):
            tags = [self._tag(token.word, (token,), token.scores) for token in tokens]
        else:
            tags = [self._word(word) for word in _words(tokens)]
        if self._aggregation != "none":
            tags = [self._join(run) for run in _runs(tags)]
        return [tag for tag in tags if tag.label not in self._ignore]

    def combine(self, item: str, results: Sequence[Sequence[Tag]]) -> list[Tag]:
        """The tags of all windows. Of two that overlap the longer is kept; if equally long, the one with more score."""
        if len(results) == 1:
            return list(results[0])
        found: list[Tag] = []
        for tag in sorted((tag for result in results for tag in result), key=lambda tag: tag.start):
            if not found or not found[-1].start <= tag.start < found[-1].end:
                found.append(tag)
            elif (tag.end - tag.start, tag.score) > (found[-1].end - found[-1].start, found[-1].score):
                found[-1] = tag
        return found

    def _tokens(self, text: str, encoding: Encoding, scores: Sequence[Sequence[float]]) -> list[_Token]:
        found = []
        columns = (encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, scores)
        for number, word, (start, end), special, row in zip(*columns, strict=True):
            if special:
                continue
            if number == self._unknown_id:
                word, continues = text[start:end], False
            elif self.encoder.marks_words:
                # A token that continues a word has a mark, so it is longer than its part of the text.
                continues = len(word) != end - start
            else:
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            found.append(_Token(word, start, end, continues, row))
        return found

    def _tag(self, word: str, tokens: Sequence[_Token], scores: Sequence[float]) -> Tag:
        best = max(range(len(scores)), key=scores.__getitem__)
        return Tag(self._labels[best], scores[best], word, tokens[0].start, tokens[-1].end)

    def _word(self, tokens: Sequence[_Token]) -> Tag:
        if self._aggregation == "first":
            scores = tokens[0].scores
        elif self._aggregation == "max":
            scores = max((token.scores for token in tokens), key=max)
        else:
            scores = [sum(column) / len(tokens) for column in zip(*(token.scores for token in tokens), strict=True)]
        return self._tag(self.encoder.join_tokens([token.word for token in tokens]), tokens, scores)

    def _join(self, tags: Sequence[Tag]) -> Tag:
        label = tags[0].label.split("-", 1)[-1]
        score = sum(tag.score for tag in tags) / len(tags)
        return Tag(label, score, self.encoder.join_tokens([tag.word for tag in tags]), tags[0].start, tags[-1].end)


def _words(tokens: Sequence[_Token]) -> list[list[_Token]]:
    words: list[list[_Token]] = []
    for token in tokens:
        if words and token.continues:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _runs(tags: Sequence[Tag]) -> list[list[Tag]]:
    runs: list[list[Tag]] = []
    for tag in tags:
        if runs and not tag.label.startswith("B-") and _kind(tag.label) == _kind(runs[-1][-1].label):
            runs[-1].append(tag)
        else:
            runs.append([tag])
    return runs


def _kind(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label
