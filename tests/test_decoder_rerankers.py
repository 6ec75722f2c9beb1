"""Rerankers made of decoders (yes and no tokens): scores are those of the same folder by `CrossEncoder.predict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.cross_encoder.modules import LogitScore
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from exporter import Report
from exporter.evaluation import evaluation_for
from runtime import load
from runtime.commands.main import main
from runtime.errors import CheckpointError, EvaluationError, InputTextError, TaskError
from tests.conftest import ROOT
from tests.test_settings import ARCHIVE, source_of, write

QUERY = "Who may copy the SOFTWARE?"
DOCUMENTS = [
    "Permission is hereby granted, free of charge",
    "x",
    " The SOFTWARE is provided AS IS, Москва — naïve? 東京 🙂\n",
    "of any person obtaining a copy of this software " * 4,
]
PAIRS = [(QUERY, document) for document in DOCUMENTS]
FLAT = (
    "<|start|>system\nAnswer yes or no.<|end|>\n<|start|>user\n"
    "<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first"
    " | default('Find what answers.', true) }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|end|>\n<|start|>assistant\n{% if thinks %}<think>\n\n{% endif %}"
)
STRUCTURED = (
    "{% for message in messages %}{{ message.role }}: {{ message.content[0].text | trim }}\n{% endfor %}Answer:"
)
CHATML = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
KNOWN = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
SIZES: dict[str, dict[str, Any]] = {
    "qwen3": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    },
    # Positions from a table, on whose account padding must be on the right; a table at the end with a bias.
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 4},
    # Scores go through a function, each by itself.
    "gemma2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "final_logit_softcapping": 3.0,
    },
}


def made(folder: Path, template: str | None, kind: str = "qwen3", **config: Any) -> Path:
    """A decoder with random weights and a tokenizer of its own."""
    torch.manual_seed(3)
    settings = transformers.AutoConfig.for_model(
        kind,
        vocab_size=500,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        **({"initializer_range": 0.3} | SIZES[kind] | config),
    )
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=490, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([(ROOT / "LICENSE").read_text() + "yes no " * 50], trainer)
    tokenizer.add_tokens(["yes", "no"])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        model_max_length=256,
        padding_side="left",
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def saved(folder: Path, template: str | None, kind: str = "qwen3", no: bool = True, **options: Any) -> Path:
    """A folder as the library saves it; `config` changes the model's configuration."""
    base = made(folder / "base", template, kind, **options.pop("config", {}))
    transformer = Transformer(str(base), transformer_task="text-generation", **options.pop("transformer", {}))
    ids = [AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(word) for word in ("yes", "no")]
    score = LogitScore(ids[0], ids[1] if no else None)
    CrossEncoder(modules=[transformer, score], device="cpu", **options).save_pretrained(str(folder / "saved"))
    return folder / "saved"


def library(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> list[float]:
    """What the library gives each pair alone."""
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return [float(model.predict([pair])[0]) for pair in pairs]


@pytest.fixture
def scores(exported: Callable[..., Report]) -> Callable[..., list[float]]:
    """What the artifact gives all documents at once, in their order."""

    def rank(folder: Path, **options: Any) -> list[float]:
        report = exported(folder, backend="plain", **({"verify": "off"} | options))
        found = load(report.output).text.rerank(QUERY, DOCUMENTS, truncate=True)
        return [one.score for one in sorted(found, key=lambda one: one.index)]

    return rank


KINDS: dict[str, dict[str, Any]] = {
    "flat": {"template": FLAT},
    "structured": {"template": STRUCTURED},
    "roles passed through": {"template": CHATML},
    "no template": {"template": None},
    "with a prompt": {"template": FLAT, "prompts": {"web": "Find a licence.\n"}, "default_prompt_name": "web"},
    "arguments": {
        "template": FLAT,
        "transformer": {"processing_kwargs": {"chat_template": {"thinks": True, "restore_suffix": True}}},
    },
    "one token": {"template": FLAT, "no": False},
    "activation": {"template": FLAT, "activation_fn": torch.nn.Identity()},
    "positions from a table": {"template": FLAT, "kind": "gptj"},
    "scores through a function": {"template": FLAT, "kind": "gemma2"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_library(tmp_path: Path, scores: Callable[..., list[float]], kind: str) -> None:
    folder = saved(tmp_path, **KINDS[kind])
    verify = "quick" if kind == "flat" else "off"
    assert scores(folder, verify=verify) == pytest.approx(library(folder), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("length", [96, 120, 121])
def test_a_text_that_is_cut_keeps_the_end_of_its_template(
    tmp_path: Path, exported: Callable[..., Report], length: int
) -> None:
    folder = saved(tmp_path, FLAT, transformer={"processor_kwargs": {"model_max_length": length}})
    model = CrossEncoder(str(folder), device="cpu")
    pairs = [(QUERY, DOCUMENTS[3][:size]) for size in (10, 40, 60, 62, 64, 66, 190)]
    lengths = [int(model.preprocess([list(pair)])["attention_mask"].sum()) for pair in pairs]
    assert min(lengths) < length == max(lengths)
    text = load(exported(folder, backend="plain", verify="off").output).text
    expected = library(folder, pairs)
    found = [text.rerank(query, [document], truncate=True)[0].score for query, document in pairs]
    assert found == pytest.approx(expected, rel=1e-3)
    with pytest.raises(InputTextError, match=rf"document 1 has \d+ tokens; expected at most {length}"):
        text.rerank(QUERY, [DOCUMENTS[3]])


def test_the_last_token_alone_is_scored(tmp_path: Path, exported: Callable[..., Report]) -> None:
    """The output is one number per pair."""
    folder = saved(tmp_path, FLAT)
    report = exported(folder, backend="plain", verify="off")
    manifest = load(report.output).manifest
    assert manifest.task == "reranking" and manifest.labels == ("relevance",)
    assert [axis.maximum for axis in manifest.outputs[0].axes[1:]] == [1]
    # The last layer's linears but those of its keys and values, and the scores.
    assert any("5 linears compute the one token" in choice for choice in report.choices), report.choices
    assert not any(500 in tensor.shape for tensor in torch.jit.load(report.output).parameters())
    whole = transformers.AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    assert manifest.model.parameters <= whole + 2 * 32


def test_a_folder_without_modules_reranks_when_asked(tmp_path: Path, scores: Callable[..., list[float]]) -> None:
    folder = made(tmp_path, FLAT)
    assert source_of(folder).task.name == "text-generation"
    assert scores(folder, task="reranking") == pytest.approx(library(folder), rel=1e-3)


def test_a_classifier_with_a_template_for_pairs(tmp_path: Path, scores: Callable[..., list[float]]) -> None:
    folder = made(tmp_path, FLAT)
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=1)
    torch.manual_seed(5)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    assert scores(folder) == pytest.approx(library(folder), rel=1e-3)
    transformer = Transformer(str(folder), transformer_task="sequence-classification")
    CrossEncoder(modules=[transformer], device="cpu").save_pretrained(str(tmp_path / "saved"))
    assert scores(tmp_path / "saved") == pytest.approx(library(tmp_path / "saved"), rel=1e-3)
    assert scores(tmp_path / "saved") == pytest.approx(scores(folder))


def test_a_classifier_whose_template_is_for_talking(tmp_path: Path, scores: Callable[..., list[float]]) -> None:
    """Its pairs are given to the tokenizer as they are, as transformers' pipeline does."""
    folder = made(tmp_path, KNOWN)
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=1)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    pipeline = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    expected = [pipeline({"text": query, "text_pair": document})["score"] for query, document in PAIRS]
    assert scores(folder) == pytest.approx(expected, rel=1e-3)


def test_the_command(tmp_path: Path, exported: Callable[..., Report], capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path, FLAT)
    path = str(exported(folder, backend="plain", verify="off").output)
    lines = tmp_path / "lines.jsonl"
    rows = [{"query": QUERY, "documents": DOCUMENTS}, {"text": QUERY, "text_pair": DOCUMENTS[0]}, {"text": QUERY}]
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert main(["predict", path, "--jsonl", str(lines), "--truncate"]) == 1
    ranking, pair, alone = map(json.loads, capsys.readouterr().out.splitlines())
    model = CrossEncoder(str(folder), device="cpu")
    expected = model.rank(QUERY, DOCUMENTS)
    assert [one["index"] for one in ranking["ranking"]] == [one["corpus_id"] for one in expected]
    assert [one["score"] for one in ranking["ranking"]] == pytest.approx([one["score"] for one in expected], rel=1e-3)
    assert pair["label"] == "relevance" and pair["score"] == pytest.approx(library(folder)[0], rel=1e-3)
    assert main(["inspect", path]) == 0
    assert "pairs     before the query: " in capsys.readouterr().out
    assert alone["error"] == "the text is one text; expected a pair of a query and a document"


TEMPLATES = {
    "for talking": (KNOWN, "it shows the query 0 times"),
    "that fails": ("{{ raise_exception('no such role') }}", "it fails: .*no such role"),
    "of documents first": ("{{ messages[1].content }} {{ messages[0].content }}", "it shows the document before the q"),
    "that says the time": (FLAT + "{{ strftime_now('%Y') }}", "it holds the time"),
    "that reads its texts": (
        FLAT + "{% if messages[1].content | length > 100 %}long{% endif %}",
        "what it puts around them depends on them",
    ),
    "that is missing": (None, "it has none"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates_that_are_not_fixed_texts_are_refused(tmp_path: Path, kind: str) -> None:
    template, words = TEMPLATES[kind]
    with pytest.raises(CheckpointError, match="how a query and a document become one text: " + words):
        source_of(made(tmp_path, template), task="reranking")


def test_what_a_folder_does_not_say_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, FLAT)
    for files, words in (
        ({"1_LogitScore/config.json": {"true_token_id": None}}, "true_token_id to None: it is not the number of a"),
        ({"1_LogitScore/config.json": {"true_token_id": 9999}}, "has no scores for the tokens 9999"),
        (
            {"1_LogitScore/config.json": {"true_token_id": 5, "module_input_name": "scores"}},
            "it reads other scores than the model's",
        ),
    ):
        write(folder, files)
        with pytest.raises(CheckpointError, match=words):
            source_of(folder)
    with pytest.raises(TaskError, match="model type 'bert' has no class|has no class"):
        config = json.loads((folder / "config.json").read_text())
        write(folder, {"config.json": {"model_type": "vit", "architectures": config["architectures"]}})
        source_of(folder)
    assert (folder / ARCHIVE).exists()


def test_a_tokenizer_without_the_words(tmp_path: Path) -> None:
    folder = made(tmp_path, FLAT)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"yes"', '"yea"'))
    with pytest.raises(CheckpointError, match="does not have the tokens yes and no"):
        source_of(folder, task="reranking")


def test_the_metrics_of_a_ranking(tmp_path: Path, exported: Callable[..., Report]) -> None:
    """NDCG and MRR of the file are those of the library's own evaluator."""
    pytest.importorskip("torchmetrics")
    folder = saved(tmp_path, FLAT)
    rows: list[dict[str, Any]] = [
        {"query": QUERY, "documents": DOCUMENTS, "relevance": [0, 0, 1, 0]},
        {"query": "Is it free?", "documents": DOCUMENTS[:3], "relevance": [1, 0, 0]},
        {"query": "What?", "documents": DOCUMENTS[1:], "relevance": [0, 1, 0]},
    ]
    lines = tmp_path / "ranked.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    metrics = exported(folder, backend="plain", verify="quick", evaluate=str(lines)).metrics
    assert metrics is not None and metrics.main == "ndcg@10" and metrics.artifact == pytest.approx(metrics.model)
    samples = [
        {"query": row["query"]}
        | {
            side: [one for one, good in zip(row["documents"], row["relevance"], strict=True) if bool(good) is wanted]
            for side, wanted in (("positive", True), ("negative", False))
        }
        for row in rows
    ]
    evaluator = CrossEncoderRerankingEvaluator(samples, at_k=10, show_progress_bar=False, write_csv=False)
    expected = evaluator(CrossEncoder(str(folder), device="cpu"))
    assert metrics.artifact["ndcg@10"] == pytest.approx(100 * expected["ndcg@10"], abs=1e-3)
    assert metrics.artifact["mrr@10"] == pytest.approx(100 * expected["mrr@10"], abs=1e-3)


@pytest.mark.parametrize(
    "row",
    [
        {"documents": DOCUMENTS[:2], "relevance": [0, 0]},
        {"documents": DOCUMENTS[:2], "relevance": [1]},
        {"documents": DOCUMENTS[:2], "relevance": [1, 0.5]},
        {"documents": [5], "relevance": [1]},
        {"documents": "one", "relevance": [1]},
    ],
    ids=["none relevant", "too few", "no whole number", "no text", "no list"],
)
def test_rankings_that_do_not_fit(tmp_path: Path, row: dict[str, Any]) -> None:
    pytest.importorskip("torchmetrics")
    lines = tmp_path / "ranked.jsonl"
    lines.write_text(json.dumps({"query": "x"} | row))
    tokenizer = AutoTokenizer.from_pretrained(made(tmp_path, FLAT))
    with pytest.raises(EvaluationError, match=r"ranked\.jsonl:1 does not say how relevant each document is"):
        evaluation_for("reranking", tokenizer, ["relevance"]).read(lines)
