"""Comparisons with transformers' pipelines of text: classes, entities, answers, masks, and vectors of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import transformers

from runtime import Session
from runtime.text.token_classification import Aggregation
from tests.model_matrix.layouts.layout import Mismatch
from tests.model_matrix.layouts.texts import CONTEXTS, NAMES, PREMISES, TEXTS
from tests.model_matrix.layouts.vectors import close_scores

_TOPICS = ("politics", "travel", "cooking")


def pipeline(task: str, folder: Path, **options: Any) -> Any:
    """The library's pipeline, in fp32."""
    return transformers.pipeline(task, model=str(folder), device="cpu", dtype=torch.float32, **options)


@dataclass(frozen=True)
class Classes:
    """`pipeline("text-classification", top_k=None)`, for texts, or for pairs of texts."""

    pairs: bool = False

    def expected(self, folder: Path) -> Any:
        """The score of each label."""
        made = pipeline("text-classification", folder)
        inputs: Sequence[Any] = TEXTS
        if self.pairs:
            inputs = [{"text": first, "text_pair": second} for first, second in PREMISES]
        found = [made(one, top_k=None, truncation=True, max_length=_room(made)) for one in inputs]
        rows = [{one["label"]: one["score"] for one in (row[0] if isinstance(row[0], list) else row)} for row in found]
        _differ([list(row.values()) for row in rows])
        return rows

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores."""
        found = session.text.classify(PREMISES if self.pairs else TEXTS, truncate=True)
        labels = sorted(expected[0])
        rows = [torch.tensor([[one[label] for label in labels] for one in each]) for each in (_scores(found), expected)]
        return close_scores(rows[0], rows[1], "scores")


def _scores(found: Any) -> list[dict[str, float]]:
    return [one.scores for one in found]


def _room(made: Any) -> int:
    """How long a text may be: as the exporter's rule has it, by the tokenizer and the positions."""
    config = made.model.config
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    offset = (config.pad_token_id or 0) + 1 if _offset(config.model_type) else 0
    return int(min(made.tokenizer.model_max_length, positions - offset))


def _offset(kind: str) -> bool:
    """Whether positions are numbered from behind the padding's id."""
    return kind in ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer")


def _differ(rows: list[list[float]]) -> None:
    """Check that the library's own answers differ."""
    if len({tuple(round(value, 4) for value in row) for row in rows}) < 2:
        raise AssertionError("the library's scores are alike")


@dataclass(frozen=True)
class ZeroShot:
    """`pipeline("zero-shot-classification")`: pairs of a text and a hypothesis per topic."""

    template: str = "This example is about {}."

    def expected(self, folder: Path) -> Any:
        """The score of each topic, for a text."""
        made = pipeline("zero-shot-classification", folder)
        found = [made(one, list(_TOPICS), hypothesis_template=self.template) for one in TEXTS[:4]]
        entails = made.entailment_id
        rows = [[dict(zip(one["labels"], one["scores"], strict=True))[topic] for topic in _TOPICS] for one in found]
        _differ(rows)
        return torch.tensor(rows), entails

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores."""
        scores, entails = expected
        rows = []
        for text in TEXTS[:4]:
            pairs = [(text, self.template.format(topic)) for topic in _TOPICS]
            logits = torch.stack([row["logits"] for row in session.text.numbers(pairs)])
            rows.append(logits[:, entails].softmax(0))
        return close_scores(torch.stack(rows), scores, "scores")


@dataclass(frozen=True)
class Entities:
    """`pipeline("token-classification")` with each way to join tokens."""

    strategies: Sequence[str] = get_args(Aggregation)

    def expected(self, folder: Path) -> Any:
        """Entities by strategy and text."""
        made = pipeline("token-classification", folder)
        found = {
            name: [
                [(_label(one), one["start"], one["end"], float(one["score"])) for one in made(text)] for text in NAMES
            ]
            for name in self.strategies
            for made in [pipeline("token-classification", folder, aggregation_strategy=name)]
        }
        del made
        if not any(any(rows) for rows in found.values()):
            raise AssertionError("the library finds no entity")
        return found

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores; other entities are a mismatch."""
        errors = [0.0]
        for name, texts in expected.items():
            found = session.text.tag(NAMES, aggregation=name)
            for text, mine, theirs in zip(NAMES, found, texts, strict=True):
                same = [(one.label, one.start, one.end) for one in mine] == [one[:3] for one in theirs]
                if not same:
                    raise Mismatch(f"aggregation {name}, {text[:20]!r}: {len(mine)} entities, not the {len(theirs)}")
                scores = torch.tensor([one.score for one in mine]), torch.tensor([one[3] for one in theirs])
                errors.append(close_scores(*scores, f"aggregation {name}"))
        return max(errors)


def _label(one: dict[str, Any]) -> str:
    return str(one.get("entity_group") or one["entity"])


@dataclass(frozen=True)
class Spans:
    """The scores of each token as the beginning and the end of the answer; the pipeline is gone from transformers 5."""

    def expected(self, folder: Path) -> Any:
        """Scores by output, for each question and its context."""
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        rows = []
        for pair in CONTEXTS:
            with torch.no_grad():
                made = model(**tokenizer(*pair, return_tensors="pt", truncation="only_second", max_length=384))
            rows.append({name: made[name][0] for name in ("start_logits", "end_logits")})
        return rows

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference; an answer that is no part of its context is a mismatch."""
        errors = [0.0]
        for pair, theirs in zip(CONTEXTS, expected, strict=True):
            answer = session.text.answer(*pair)
            if not answer.text or pair[1][answer.start : answer.end] != answer.text:
                raise Mismatch(f"answer {answer.text[:80]!r} is not that part of the context")
            if len(theirs["start_logits"]) == 384:
                continue  # cut by the library
            mine = session.text.numbers([pair])[0]
            errors += [close_scores(mine[name], theirs[name], name) for name in theirs]
        return max(errors)


@dataclass(frozen=True)
class Masks:
    """`pipeline("fill-mask")`, one mask per text."""

    def expected(self, folder: Path) -> Any:
        """The best tokens, with the texts that they complete."""
        made = pipeline("fill-mask", folder)
        texts = [text.format(made.tokenizer.mask_token) for text in ("The bank in {} closed.", "Hi {}", "{} rose")]
        found = [made(text, top_k=5) for text in texts]
        return texts, [[(one["token"], one["score"], one["sequence"]) for one in row] for row in found]

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of the scores; other tokens are a mismatch."""
        texts, rows = expected
        errors = [0.0]
        for text, found, theirs in zip(texts, session.text.fill(texts, top_k=5), rows, strict=True):
            mine = found[0]
            if [one.id for one in mine] != [one[0] for one in theirs]:
                raise Mismatch(f"{text!r}: tokens {[one.id for one in mine]}, expected {[one[0] for one in theirs]}")
            if [one.text for one in mine] != [one[2] for one in theirs]:
                raise Mismatch(f"{text!r}: {mine[0].text!r}, expected {theirs[0][2]!r}")
            scores = torch.tensor([one.score for one in mine]), torch.tensor([one[1] for one in theirs])
            errors.append(close_scores(*scores, "scores", 1e-3))
        return max(errors)


@dataclass(frozen=True)
class TokenVectors:
    """`pipeline("feature-extraction")`: a vector per token."""

    def expected(self, folder: Path) -> Any:
        """Vectors by text."""
        made = pipeline("feature-extraction", folder, tokenize_kwargs={"truncation": True, "max_length": 64})
        return [torch.tensor(made(text)[0]) for text in TEXTS]

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference."""
        found = session.text.embed([text for text in TEXTS if len(text) < 100])
        short = [rows for text, rows in zip(TEXTS, expected, strict=True) if len(text) < 100]
        return max(close_scores(mine, theirs, "vectors") for mine, theirs in zip(found, short, strict=True))
