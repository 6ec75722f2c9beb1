"""Rerankers: documents in the order, and with the scores, that `CrossEncoder.rank` gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import CrossEncoder

from exporter import Report
from runtime import Session, load
from runtime.commands.main import main
from runtime.errors import InputTaskError, InputTextError
from tests.conftest import Side, byte_level, tiny_model

QUERY = "What is granted?"
DOCUMENTS = [
    "Permission is hereby granted, free of charge",
    "x",
    "The SOFTWARE is provided AS IS, Москва — naïve? 東京 🙂",
    "x",
    "of any person obtaining a copy of this software " * 7,
]
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"
# What config.json says, and what config_sentence_transformers.json beside modules.json says, where they are there.
AGES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "unmarked": ({}, None),
    "before release 4": ({"sbert_ce_default_activation_function": IDENTITY}, None),
    "from release 4 on": ({"sentence_transformers": {"activation_fn": TANH, "version": "4.1.0"}}, None),
    "with modules": ({}, {"model_type": "CrossEncoder", "activation_fn": IDENTITY}),
}
Capture = pytest.CaptureFixture[str]


class Reranker:
    """One folder twice: as the library reads it, and as an artifact."""

    def __init__(self, folder: Path, path: str) -> None:
        self.library = CrossEncoder(str(folder), device="cpu")
        self.path = path
        self.session: Session = load(path)


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory, exported: Callable[..., Report]) -> Callable[[str], Reranker]:
    made: dict[str, Reranker] = {}

    def make(age: str) -> Reranker:
        if age not in made:
            folder = tmp_path_factory.mktemp("reranker")
            sizes = {"vocab_size": 400, "max_position_embeddings": 258, "type_vocab_size": 1, "pad_token_id": 1}
            model = tiny_model("roberta", "text-classification", num_labels=1, initializer_range=0.3, **sizes)
            model.save_pretrained(folder)
            byte_level(folder)
            config, modules = AGES[age]
            files = {"config.json": json.loads((folder / "config.json").read_text()) | config}
            if modules is not None:
                kind = "sentence_transformers.base.modules.transformer.Transformer"
                files["modules.json"] = [{"idx": 0, "name": "0", "path": "", "type": kind}]
                files["config_sentence_transformers.json"] = modules
                files["sentence_bert_config.json"] = {"transformer_task": "sequence-classification"}
            for name, content in files.items():
                (folder / name).write_text(json.dumps(content))
            made[age] = Reranker(folder, str(exported(folder, backend="plain", verify="off").output))
        return made[age]

    return make


@pytest.mark.parametrize("age", AGES)
def test_ranking(reranker: Callable[[str], Reranker], age: str) -> None:
    both = reranker(age)
    assert both.session.manifest.task == "reranking"
    for top_k in (None, 2, 9):
        expected = both.library.rank(QUERY, DOCUMENTS, top_k=top_k, return_documents=True)
        found = both.session.text.rerank(QUERY, DOCUMENTS, top_k=top_k)
        # Not by index: of two equal documents, the last bits of the scores may depend on their places in a batch.
        assert [one.text for one in found] == [one["text"] for one in expected]
        assert all(DOCUMENTS[one.index] == one.text for one in found)
        assert len({one.index for one in found}) == len(found)
        tied = [(a.index, b.index) for a, b in pairwise(found) if a.score == b.score]
        assert all(first < second for first, second in tied)
        assert [one.score for one in found] == pytest.approx([one["score"] for one in expected], rel=2e-4, abs=1e-5)
    pairs = [(QUERY, text) for text in DOCUMENTS]
    scores = [one.score for one in both.session.text.classify(pairs)]
    assert scores == pytest.approx(both.library.predict(pairs).tolist(), rel=2e-4, abs=1e-5)


def test_a_pair_that_is_too_long_is_cut_where_that_is_asked_for(reranker: Callable[[str], Reranker]) -> None:
    both = reranker("unmarked")
    documents = [DOCUMENTS[0], DOCUMENTS[4] * 9]
    with pytest.raises(InputTextError, match=r"document 2 has \d+ tokens; expected at most 256"):
        both.session.text.rerank(QUERY, documents)
    found = both.session.text.rerank(QUERY, documents, truncate=True)
    expected = both.library.rank(QUERY, documents)
    assert [one.score for one in found] == pytest.approx([one["score"] for one in expected], rel=2e-4)


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (QUERY, [], r"documents is \[\]; expected a list of at least one document"),
        (QUERY, "a text", "documents is 'a text'; expected a list"),
        (QUERY, None, "documents is None; expected a list"),
        (QUERY, ["a", 5], "document 2 is 5; expected a string"),
        (QUERY, ["a", ("b", "c")], r"document 2 is \('b', 'c'\); expected a string"),
        (QUERY, ["a", " "], "document 2 is empty; expected at least one word"),
        (5, ["a"], "query is 5; expected a string of at least one word"),
        (" ", ["a"], "query is ' '; expected a string of at least one word"),
    ],
)
def test_what_cannot_be_ranked(reranker: Callable[[str], Reranker], query: Any, documents: Any, message: str) -> None:
    with pytest.raises(InputTextError, match=message):
        reranker("unmarked").session.text.rerank(query, documents)


@pytest.mark.parametrize("top_k", [0, -1, "many"])
def test_a_number_of_documents_that_makes_no_sense(reranker: Callable[[str], Reranker], top_k: Any) -> None:
    with pytest.raises(InputTextError, match="top_k is .*; expected a whole number from 1"):
        reranker("unmarked").session.text.rerank(QUERY, DOCUMENTS, top_k=top_k)


def test_prompts_by_name_are_refused(reranker: Callable[[str], Reranker]) -> None:
    with pytest.raises(InputTaskError, match="prompt_name 'query' for reranking; expected no name"):
        reranker("unmarked").session.text.rerank(QUERY, DOCUMENTS, prompt_name="query")


def test_other_models_do_not_rerank(side: Callable[..., Side], reranker: Callable[[str], Reranker]) -> None:
    text = side("text-classification", num_labels=3).text
    with pytest.raises(
        InputTaskError,
        match="rerank on an artifact for text-classification; expected an artifact for reranking; call cl",
    ):
        text.rerank(QUERY, DOCUMENTS)
    with pytest.raises(InputTaskError, match="embed on an artifact for reranking; .*; call rerank"):
        reranker("unmarked").session.text.embed(["x"])


def predicted(path: str, lines: Path, capsys: Capture, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    code = main(["predict", path, "--jsonl", str(lines), *options])
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_the_command(reranker: Callable[[str], Reranker], tmp_path: Path, capsys: Capture) -> None:
    both = reranker("before release 4")
    lines = tmp_path / "queries.jsonl"
    lines.write_text(
        "\n".join(
            json.dumps(one)
            for one in (
                {"id": "a", "query": QUERY, "documents": DOCUMENTS},
                {"query": QUERY, "documents": []},
                {"query": QUERY, "documents": ["a", 5]},
                {"query": QUERY},
                {"query": 5, "documents": ["a"]},
                {"text": QUERY, "text_pair": "x"},
                {"documents": ["a"]},
                {"id": 8, "query": "Who?", "documents": DOCUMENTS[:3]},
            )
        )
    )
    code, rows, errors = predicted(both.path, lines, capsys, "--top-k", "2")
    assert code == 1 and errors.startswith("run-model: 5 of 8 lines failed; line 2: documents is []; expected a list")
    for row, (name, query, documents) in (
        (rows[0], ("a", QUERY, DOCUMENTS)),
        (rows[7], (8, "Who?", DOCUMENTS[:3])),
    ):
        expected = both.library.rank(query, documents, top_k=2, return_documents=True)
        assert row == {
            "id": name,
            "ranking": [
                {"index": one["corpus_id"], "score": pytest.approx(one["score"], rel=2e-4), "text": one["text"]}
                for one in expected
            ],
        }
    assert [row.get("line") for row in rows] == [None, 2, 3, 4, 5, None, 7, None]
    assert rows[2]["error"] == "document 2 is 5; expected a string"
    assert rows[3]["error"] == 'the line has no "documents"; expected {"query": "…", "documents": ["…"]}'
    assert rows[4]["error"] == '"query" is 5; expected a string'
    assert rows[5]["score"] == pytest.approx(float(both.library.predict([(QUERY, "x")])[0]), rel=2e-4)


def test_plain_texts_and_tensors_are_classified(
    reranker: Callable[[str], Reranker], tmp_path: Path, capsys: Capture
) -> None:
    both = reranker("unmarked")
    assert main(["predict", both.path, "--text", QUERY]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["label"] == "LABEL_0"
    inputs = tmp_path / "x.json"
    inputs.write_text(json.dumps({"input_ids": both.session.text.encode([QUERY])["input_ids"].tolist()}))
    assert main(["predict", both.path, "--inputs", str(inputs)]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(row["score"], rel=1e-4)
