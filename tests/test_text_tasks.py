"""The results of `session.text`, compared with transformers' pipelines on the same model in fp32."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from exporter import Report
from runtime import Session, load
from runtime.errors import InputError, InputTaskError, InputTextError, InputValueError
from runtime.format.codec import from_json, to_json
from runtime.text import Answer, Text, TextEncoder
from tests.conftest import Side, byte_level, tiny_model

TEXTS = [
    "Ada Lovelace wrote to Charles Babbage from London in 1843.",
    "x",
    "The unbelievably long-winded Committee of Düsseldorf didn't answer; nobody was astonished !",
    "Two  spaces, a\ttab, 日本語 and 🙂 emoji.",
]
CONTEXT = (
    "The ferry to the island leaves at seven in the morning and comes back at noon. In winter it does not sail. "
    "Tickets are sold in the harbour's office, which opens at six. Dogs travel free of charge, bicycles two coins. "
)
QUESTIONS = ["When does the ferry leave?", "Where are tickets sold?"]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
CLOSE: dict[str, Any] = {"rel": 2e-4, "abs": 1e-6}


def test_sentence_embeddings_are_those_of_sentence_transformers(minilm: Path, exported: Callable[..., Report]) -> None:
    from sentence_transformers import SentenceTransformer

    session = load(exported(minilm, backend="plain", verify="off").output)
    expected = SentenceTransformer(str(minilm), device="cpu").encode([*TEXTS, "word " * 400], convert_to_tensor=True)
    found = session.text.embed([*TEXTS, "word " * 400], truncate=True)
    assert torch.stack(found).shape == (5, 384)
    torch.testing.assert_close(torch.stack(found), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_token_vectors_are_those_of_the_pipeline(side: Callable[..., Side], kind: str) -> None:
    both = side("feature-extraction", kind)
    found = both.text.embed(TEXTS)
    for ours, theirs in zip(found, both.pipeline()(TEXTS), strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {"num_labels": 3},
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        {"num_labels": 1},
        {"num_labels": 1, "problem_type": "regression"},
    ],
    ids=["one-of-several", "several-at-once", "one-label", "regression"],
)
def test_classification(side: Callable[..., Side], config: dict[str, Any]) -> None:
    both = side("text-classification", **config)
    pairs = [("A ferry.", "It sails at seven."), ("No.", "Yes, in winter.")]
    theirs = both.pipeline()([*TEXTS, *({"text": one, "text_pair": two} for one, two in pairs)], top_k=None)
    for ours, expected in zip(both.text.classify([*TEXTS, *pairs]), theirs, strict=True):
        assert list(ours.scores) == [one["label"] for one in expected]
        assert list(ours.scores.values()) == pytest.approx([one["score"] for one in expected], **CLOSE)
        assert (ours.label, ours.score) == next(iter(ours.scores.items()))
    (two,) = both.text.classify(TEXTS[:1], top_k=2)
    assert list(two.scores) == [one["label"] for one in both.pipeline()(TEXTS[0], top_k=2)]


def tags_of(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(tag.label, tag.word, tag.start, tag.end) for tag in found]


def entities_of(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one.get("entity_group", one.get("entity")), one["word"], one["start"], one["end"]) for one in found]


def labelled(side: Callable[..., Side], kind: str) -> Side:
    names = dict(enumerate(LABELS))
    return side("token-classification", kind, id2label=names, label2id={name: i for i, name in names.items()})


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_tags(side: Callable[..., Side], kind: str, aggregation: Any) -> None:
    both = labelled(side, kind)
    theirs = both.pipeline(aggregation_strategy=aggregation)(TEXTS)
    found = both.text.tag(TEXTS, aggregation=aggregation)
    assert sum(map(len, found)) >= len(TEXTS)
    for text, ours, expected in zip(TEXTS, found, theirs, strict=True):
        assert tags_of(ours) == entities_of(expected)
        assert [tag.score for tag in ours] == pytest.approx([float(one["score"]) for one in expected], **CLOSE)
        assert all(0 <= tag.start <= tag.end <= len(text) for tag in ours)
    everything = both.pipeline(aggregation_strategy=aggregation, ignore_labels=[])(TEXTS[0])
    assert tags_of(both.text.tag(TEXTS[:1], aggregation=aggregation, ignore=())[0]) == entities_of(everything)


def test_tags_of_a_long_text_by_stride(side: Callable[..., Side]) -> None:
    both = labelled(side, "roberta")
    text = " ".join(TEXTS * 12)
    with pytest.raises(InputTextError, match=r"text 1 has \d+ tokens; expected at most 256"):
        both.text.tag([text])
    (found,) = both.text.tag([text], stride=32)
    theirs = both.pipeline(aggregation_strategy="simple", stride=32)(text)
    assert tags_of(found) == entities_of(theirs)
    assert found[-1].end > len(text) - 20
    (cut,) = both.text.tag([text], truncate=True)
    assert tags_of(cut) == entities_of(both.pipeline(aggregation_strategy="simple")(text))
    assert cut[-1].end < len(text) / 2


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) > 4, reason="transformers 5 has no such pipeline")
@pytest.mark.filterwarnings("ignore")  # that it will be removed
@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize("options", [{}, {"window": 64, "stride": 16}, {"window": 40, "stride": 8, "longest": 3}])
def test_answers_are_those_of_the_pipeline(
    side: Callable[..., Side], kind: str, impossible: bool, options: dict[str, int]
) -> None:
    both = side("question-answering", kind)
    renamed = {"window": "max_seq_len", "stride": "doc_stride", "longest": "max_answer_len"}
    pipeline = both.pipeline()
    for question in QUESTIONS:
        for context in (CONTEXT, "At seven.", CONTEXT * 12):
            theirs = pipeline(
                question=question,
                context=context,
                handle_impossible_answer=impossible,
                **{renamed[name]: value for name, value in options.items()},
            )
            ours = both.text.answer(question, context, impossible=impossible, **options)
            assert (ours.text, ours.start, ours.end) == (theirs["answer"], theirs["start"], theirs["end"])
            assert ours.score == pytest.approx(theirs["score"], rel=1e-3, abs=1e-6)


def likeliest(model: Any, encoded: Any, window: int, context: str) -> dict[str, float]:
    """Every span of one window of the model's own tokenizer, by brute force: its words with their summed score."""
    ids = torch.tensor([encoded["input_ids"][window]])
    types = torch.tensor([encoded["token_type_ids"][window]])
    with torch.no_grad():
        output = model(input_ids=ids, token_type_ids=types)
    parts = encoded.sequence_ids(window)
    inside = [i for i, part in enumerate(parts) if part == 1]
    rivals = [0, *inside]
    start, end = (
        dict(zip(rivals, logits[0, rivals].double().softmax(0).tolist(), strict=True))
        for logits in (output.start_logits, output.end_logits)
    )
    spans = sorted(
        ((start[a] * end[b], a, b) for a in inside for b in inside if a <= b < a + 15), reverse=True, key=lambda s: s[0]
    )
    found: dict[str, float] = {}
    for score, a, b in spans[:12]:
        first = encoded.word_to_chars(window, encoded.token_to_word(window, a), 1)[0]
        last = encoded.word_to_chars(window, encoded.token_to_word(window, b), 1)[1]
        words = context[first:last].lower()
        found[words] = found.get(words, 0) + score
    return found


def test_an_answer_is_the_likeliest_span_of_all_windows(side: Callable[..., Side]) -> None:
    both = side("question-answering")
    tokenizer = AutoTokenizer.from_pretrained(both.folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(both.folder).eval()
    for context in (CONTEXT, CONTEXT * 12):
        encoded = tokenizer(
            QUESTIONS[0], context, truncation="only_second", max_length=384, stride=128, return_overflowing_tokens=True
        )
        scores: dict[str, float] = {}
        for window in range(len(encoded["input_ids"])):
            for words, score in likeliest(model, encoded, window, context).items():
                scores[words] = scores.get(words, 0) + score
        ours = both.text.answer(QUESTIONS[0], context)
        assert ours.text.lower() == max(scores, key=scores.__getitem__)
        assert ours.score == pytest.approx(max(scores.values()), rel=1e-3)
        assert context[ours.start : ours.end] == ours.text


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_fill(side: Callable[..., Side], kind: str) -> None:
    both = side("fill-mask", kind)
    mask = {"bert": "[MASK]", "roberta": "<mask>"}[kind]
    texts = [f"The ferry {mask} at seven.", f"{mask} travel free of charge , don 't they ?", f"{mask} and {mask}."]
    pipeline = both.pipeline(top_k=4)
    for text, ours in zip(texts, both.text.fill(texts, top_k=4), strict=True):
        theirs = pipeline(text)
        theirs = theirs if isinstance(theirs[0], list) else [theirs]
        assert [[(c.token, c.id, c.text) for c in row] for row in ours] == [
            [(c["token_str"], c["token"], c["sequence"]) for c in row] for row in theirs
        ]
        for row, expected in zip(ours, theirs, strict=True):
            assert [c.score for c in row] == pytest.approx([c["score"] for c in expected], **CLOSE)


def test_a_text_without_a_mask_fails_alone(side: Callable[..., Side]) -> None:
    text = side("fill-mask").text
    with pytest.raises(InputTextError, match=r"text 2 holds no \[MASK\]"):
        text.fill(["a [MASK]", "nothing"])
    good, bad = text.fill(["a [MASK]", "nothing"], top_k=1, errors="return")
    assert len(good[0]) == 1 and isinstance(bad, InputTextError)


METHODS: dict[str, Callable[[Text], Any]] = {
    "embed": lambda text: text.embed(["a"]),
    "classify": lambda text: text.classify(["a"]),
    "tag": lambda text: text.tag(["a"]),
    "answer": lambda text: text.answer("a", "b"),
    "fill": lambda text: text.fill(["a [MASK]"]),
}


@pytest.mark.parametrize(
    ("task", "own"),
    [("text-classification", "classify"), ("question-answering", "answer"), ("fill-mask", "fill")],
)
def test_other_tasks_are_refused_by_name(side: Callable[..., Side], task: str, own: str) -> None:
    both = side(task, **({"num_labels": 3} if task == "text-classification" else {}))
    METHODS[own](both.text)
    for method, call in METHODS.items():
        if method != own:
            with pytest.raises(InputTaskError, match=f"{method} on an artifact for {task}.*call {own}"):
                call(both.text)


BAD = [
    (5, "is 5; expected a string"),
    ("", "is empty"),
    (" \n", "is empty"),
    (("a", ""), "is empty"),
    (b"\xff".decode(errors="surrogateescape"), "holds bytes that are not UTF-8"),
    ("word " * 600, "has 602 tokens; expected at most 512"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=["number", "empty", "blank", "half", "bytes", "long"])
def test_a_bad_row_fails_alone(side: Callable[..., Side], bad: Any, message: str) -> None:
    text = side("text-classification", num_labels=3).text
    with pytest.raises(InputTextError, match=f"text 2 {message}"):
        text.classify([TEXTS[0], bad, TEXTS[2]])
    first, error, last = text.classify([TEXTS[0], bad, TEXTS[2]], errors="return")
    assert isinstance(error, InputTextError) and str(error).startswith(f"the text {message}")
    assert [first.scores, last.scores] == [
        pytest.approx(one.scores, rel=1e-5) for one in text.classify([TEXTS[0], TEXTS[2]])
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "is 'text'; expected a tuple of question and context"),
        (("", "context"), "has an empty question"),
        (("question", " "), "has an empty context"),
        (("question " * 300, CONTEXT * 12), "has a question of 300 tokens; expected at most 252"),
        (("question", 5), "is 5; expected a string"),
    ],
)
def test_a_bad_pair_fails_alone(side: Callable[..., Side], bad: Any, message: str) -> None:
    text = side("question-answering").text
    good = (QUESTIONS[0], CONTEXT)
    with pytest.raises(InputTextError, match=f"pair 2 {message}"):
        text.answers([good, bad])
    first, error = text.answers([good, bad], errors="return")
    assert isinstance(error, InputTextError) and isinstance(first, Answer)
    assert first.text == text.answer(*good).text


def test_a_row_that_the_model_refuses_fails_alone(side: Callable[..., Side], minilm: Path) -> None:
    """A tokenizer with more words than the model has embeddings."""
    both = side("text-classification", "roberta", num_labels=3)
    manifest = both.session.manifest
    assert manifest.text is not None
    info = dataclasses.replace(manifest.text, pad_id=0)
    encoder = TextEncoder((minilm / "tokenizer.json").read_bytes(), info, ["input_ids", "attention_mask"])
    text = Text(both.session, manifest, encoder)
    # Unknown and special tokens have ids of about 100, words are beyond the model's 400.
    found = text.classify(["🙂", "word", "🙂 🙂"], errors="return")
    assert [isinstance(one, InputValueError) for one in found] == [False, True, False]
    with pytest.raises(InputValueError, match="text 2: input 'input_ids' holds"):
        text.classify(["🙂", "word", "🙂 🙂"])


@pytest.mark.parametrize("texts", [[], "one string", None, iter(["a"])])
def test_what_is_no_list_of_texts(side: Callable[..., Side], texts: Any) -> None:
    with pytest.raises(InputTextError, match="a list of at least one text"):
        side("text-classification", num_labels=3).text.classify(texts)


@pytest.mark.parametrize(
    ("task", "call"),
    [
        ("text-classification", lambda text: text.classify(["a"], top_k=0)),
        ("text-classification", lambda text: text.classify(["a"], errors="ignore")),
        ("fill-mask", lambda text: text.fill(["a [MASK]"], top_k="many")),
        ("token-classification", lambda text: text.tag(["a"], aggregation="best")),
        ("token-classification", lambda text: text.tag(["a"], stride=16, aggregation="none")),
        ("token-classification", lambda text: text.tag(["a"], stride=16, truncate=True)),
        ("token-classification", lambda text: text.tag(["a"], stride=600)),
        ("question-answering", lambda text: text.answer("a", "b", window=4)),
        ("question-answering", lambda text: text.answer("a", "b", window=64, stride=64)),
        ("question-answering", lambda text: text.answer("a", "b", longest=0)),
    ],
)
def test_options_that_make_no_sense(side: Callable[..., Side], task: str, call: Callable[[Text], Any]) -> None:
    both = (
        labelled(side, "bert")
        if task == "token-classification"
        else side(task, **({"num_labels": 3} if task == "text-classification" else {}))
    )
    with pytest.raises(InputTextError, match="expected"):
        call(both.text)


def test_many_texts_of_many_lengths_come_back_in_order(side: Callable[..., Side]) -> None:
    text = side("text-classification", num_labels=3).text
    texts = [f"{'word ' * (number * 37 % 90)}number {number}" for number in range(60)]
    alone = [text.classify([one])[0] for one in texts]
    for ours, expected in zip(text.classify(texts), alone, strict=True):
        assert ours.scores == pytest.approx(expected.scores, rel=1e-4, abs=1e-6)


def test_a_file_of_an_older_writer_embeds_and_classifies_and_says_what_it_cannot(side: Callable[..., Side]) -> None:
    for task, works in (("text-classification", True), ("fill-mask", False), ("question-answering", False)):
        both = side(task, **({"num_labels": 3} if works else {}))
        text = both.session.manifest.text
        assert text is not None
        manifest = dataclasses.replace(both.session.manifest, text=dataclasses.replace(text, rules=None))
        old = to_json(manifest).replace(',\n  "rules": null', "")
        assert "rules" not in old
        both_old = Session(both.session._module, from_json(old, "f"), both.session._tokenizer)
        method = METHODS[{"fill-mask": "fill", "question-answering": "answer"}.get(task, "classify")]
        if works:
            method(both_old.text)
        else:
            with pytest.raises(InputTaskError, match="exporter of this file.*export the model again"):
                method(both_old.text)


def test_a_megabyte_is_refused_cut_or_divided(side: Callable[..., Side]) -> None:
    text = side("text-classification", num_labels=3).text
    large = "word " * 200_000
    error, _ = text.classify([large, "x"], errors="return")
    assert isinstance(error, InputError) and "200002 tokens" in str(error)
    assert text.classify([large], truncate=True)[0].scores == pytest.approx(
        text.classify(["word " * 510])[0].scores, rel=1e-4
    )
    assert text.classify(["a" * 10**6, "." * 10**6], errors="return")[0].label


def test_the_default_prompt_and_the_lower_case_of_a_folder(tmp_path: Path, exported: Callable[..., Report]) -> None:
    from sentence_transformers import SentenceTransformer

    byte_level(tmp_path)
    sizes = {"vocab_size": 400, "max_position_embeddings": 258, "type_vocab_size": 1, "pad_token_id": 1}
    tiny_model("roberta", "feature-extraction", initializer_range=0.3, **sizes).save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    for name, content in {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True},
        "config_sentence_transformers.json": {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    text = load(exported(tmp_path, backend="plain", verify="off").output).text
    reference = SentenceTransformer(str(tmp_path), device="cpu")
    for ours, options in ((text.embed(TEXTS), {}), (text.embed(TEXTS, prompt=""), {"prompt": ""})):
        expected = reference.encode(TEXTS, convert_to_tensor=True, **options)  # type: ignore[call-overload]
        torch.testing.assert_close(torch.stack(ours), expected, atol=1e-5, rtol=1e-4)
    assert not torch.equal(text.embed(["a"])[0], text.embed(["a"], prompt="")[0])
    torch.testing.assert_close(text.embed(["LONDON"]), text.embed(["london"]))
    with pytest.raises(InputTextError, match="text 1 is empty"):
        text.embed([" "])
