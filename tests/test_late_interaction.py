"""Late interaction (ColBERT): vectors of tokens are those of the library's MultiVectorEncoder, for both sides."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask
from transformers import AddedToken, AutoModel, AutoTokenizer

from exporter import Report
from runtime import load
from runtime.errors import CheckpointError, InputTaskError, InputTextError, TaskError
from tests.conftest import byte_level, tiny_model
from tests.test_settings import ARCHIVE, SIZES, modules, source_of, write

QUERIES = ["granted", "Who may copy the SOFTWARE, and why?", "of any person obtaining a copy " * 4]
DOCUMENTS = ["x!", "Permission is hereby granted; to any person, (free of charge).", "sublicense, and/or sell. " * 20]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tiny_model("roberta", "feature-extraction", **SIZES).save_pretrained(folder)
    byte_level(folder)
    return folder


@pytest.fixture
def saved(encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder as the library saves it."""

    def make(*more: Any, mask: dict[str, Any] | None = None, **transformer: Any) -> Path:
        torch.manual_seed(3)
        parts = [
            Transformer(str(encoder), **transformer),
            Dense(32, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"),
            MultiVectorMask(**(mask or {})),
            Normalize(module_input_name="token_embeddings"),
            *more,
        ]
        prompts = {"query": "Q: ", "document": "D: "}
        MultiVectorEncoder(modules=parts, prompts=prompts, device="cpu").save_pretrained(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return make


PUNCTUATION = {"skiplist_words": list(string.punctuation)}
# Settings of the transformer and of the mask.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "documents longer than other texts": ({"max_seq_length": 40, "document_length": 60}, {}),
    "punctuation left out": ({"document_length": 60, "query_length": 20}, PUNCTUATION),
    "of queries too": ({}, PUNCTUATION | {"skiplist_tasks": ["query", "document"]}),
    "queries filled up": ({"query_expansion": {"strategy": "fixed", "length": 24}, "document_length": 60}, PUNCTUATION),
    "filled up and looked at": ({"query_expansion": {"strategy": "fixed", "length": 24, "attend": True}}, {}),
    "longer queries kept": ({"query_expansion": {"strategy": "min", "length": 24, "token": "</s>"}}, {}),
}


def expect_close(found: list[torch.Tensor], expected: Iterable[torch.Tensor]) -> None:
    expected = list(expected)
    assert [tuple(one.shape) for one in found] == [tuple(one.shape) for one in expected]
    for one, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(one, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_library(
    saved: Callable[..., Path], exported: Callable[..., Report], kind: str
) -> None:
    transformer, mask = KINDS[kind]
    place = saved(mask=mask, **transformer)
    library = MultiVectorEncoder(str(place), device="cpu", model_kwargs={"dtype": torch.float32})
    text = load(exported(place, backend="plain", verify="quick" if kind == "plain" else "off").output).text
    expect_close(text.embed_tokens(QUERIES, side="query", truncate=True), library.encode_query(QUERIES))
    expect_close(text.embed_tokens(DOCUMENTS, side="document", truncate=True), library.encode_document(DOCUMENTS))
    expect_close(text.embed(DOCUMENTS, truncate=True), library.encode(DOCUMENTS))
    expect_close(text.embed_tokens(QUERIES[:1], side="query"), library.encode_query(QUERIES[:1]))
    by_name = library.encode(DOCUMENTS, prompt_name="document")
    expect_close(text.embed_tokens(DOCUMENTS, prompt_name="document", truncate=True), by_name)
    expect_close(text.embed(DOCUMENTS, prompt_name="document", truncate=True), by_name)


def test_added_tokens_are_computed_where_padding_is_otherwise_left_out(
    saved: Callable[..., Path], exported: Callable[..., Report]
) -> None:
    place = saved(query_expansion={"strategy": "fixed", "length": 24})
    session = load(exported(place, backend="onednn", verify="quick").output)
    assert session.manifest.padded_output == "computed"
    library = MultiVectorEncoder(str(place), device="cpu", model_kwargs={"dtype": torch.float32})
    expect_close(session.text.embed_tokens(QUERIES, side="query", truncate=True), library.encode_query(QUERIES))


def test_what_does_not_fit(saved: Callable[..., Path], exported: Callable[..., Report]) -> None:
    text = load(exported(saved(query_length=20), backend="plain", verify="off").output).text
    with pytest.raises(InputTextError, match=r"text 2 has 25 tokens; expected at most 20"):
        text.embed_tokens(QUERIES, side="query")
    with pytest.raises(InputTextError, match="prompt_name is 'title'; expected one of the model's prompts: query, d"):
        text.embed_tokens(QUERIES, prompt_name="title")
    with pytest.raises(InputTextError, match="side is 'title'; expected query or document"):
        text.embed_tokens(QUERIES, side="title")  # type: ignore[arg-type]
    with pytest.raises(InputTaskError, match="embed_sparse on an artifact for token-embedding.*call embed_tokens"):
        text.embed_sparse(QUERIES)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"2_MultiVectorMask/config.json": {"keep_only_token_ids": [5]}}, "keep_only_token_ids to .*certain tokens"),
        ({"3_Normalize/config.json": {}}, "module_input_name to 'sentence_embedding': expected token_embeddings"),
        ({"sentence_bert_config.json": {"query_expansion": {"strategy": "fixed"}}}, "no strategy and length"),
        ({"sentence_bert_config.json": {"query_expansion": {"width": 3}}}, "width to 3: this exporter does not know"),
        ({"sentence_bert_config.json": {"query_length": "long"}}, "query_length to 'long'"),
        ({"modules.json": modules("Transformer", "Pooling")}, "a MultiVectorEncoder of Transformer, Pooling"),
    ],
)
def test_other_settings_are_refused_by_name(saved: Callable[..., Path], files: dict[str, Any], words: str) -> None:
    place = saved()
    write(place, files)
    with pytest.raises(CheckpointError, match=words):
        source_of(place)


def test_pooled_tokens_are_refused_by_name(saved: Callable[..., Path]) -> None:
    with pytest.raises(
        CheckpointError, match="HierarchicalTokenPooling, a module .* that this exporter does not support"
    ):
        source_of(saved(HierarchicalTokenPooling(2)))


def test_a_model_that_does_not_tell_queries_from_documents(encoder: Path, tmp_path: Path) -> None:
    for file in encoder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    files = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": {"pooling_mode": "mean"}}
    write(tmp_path, files | {ARCHIVE: {}, "sentence_bert_config.json": {"query_length": 32}})
    with pytest.raises(CheckpointError, match="query_length to 32: queries and documents get the same treatment here"):
        source_of(tmp_path)


PYLATE: dict[str, dict[str, Any]] = {
    "usual": {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 24, "document_length": 60},
    # The first is in the vocabulary, but the tokenizer makes other tokens of its text.
    "prefixes that are tokens": {"query_prefix": "Ġthe ", "document_prefix": "<document> ", "query_length": 24},
    "prompts too": {"query_prefix": "[Q] ", "prompts": {"query": "[Q] Find: ", "document": "Text: "}},
    "queries as they are": {"do_query_expansion": False, "query_length": 20, "skiplist_words": []},
    "added tokens looked at": {"attend_to_expansion_tokens": True, "query_length": 24, "skiplist_words": [",", "("]},
    "nothing said": {},
}


@pytest.fixture
def pylate(encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder as PyLate saved it: a linear layer of its own, and all settings in one file."""

    def make(**said: Any) -> Path:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        tokenizer.add_tokens([AddedToken("<document> ", normalized=False)])
        tokenizer.save_pretrained(tmp_path)
        model = AutoModel.from_pretrained(encoder)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(tmp_path)
        torch.manual_seed(3)
        write(
            tmp_path,
            {
                "modules.json": modules("Transformer", "pylate.models.Dense.Dense"),
                "1_Dense/config.json": {
                    "in_features": 32,
                    "out_features": 8,
                    "bias": False,
                    "activation_function": "torch.nn.modules.linear.Identity",
                },
                ARCHIVE: {"model_type": "ColBERT", "similarity_fn_name": "MaxSim"} | said,
            },
        )
        save_file({"linear.weight": torch.randn(8, 32)}, tmp_path / "1_Dense" / "model.safetensors")
        return tmp_path

    return make


@pytest.mark.parametrize("kind", PYLATE)
def test_folders_that_pylate_saved(pylate: Callable[..., Path], exported: Callable[..., Report], kind: str) -> None:
    place = pylate(**PYLATE[kind])
    library = MultiVectorEncoder(str(place), device="cpu", model_kwargs={"dtype": torch.float32})
    session = load(exported(place, backend="plain", verify="off").output)
    assert session.manifest.task == "token-embedding"
    text = session.text
    expect_close(text.embed_tokens(QUERIES, side="query", truncate=True), library.encode_query(QUERIES))
    expect_close(text.embed_tokens(DOCUMENTS, side="document", truncate=True), library.encode_document(DOCUMENTS))


def test_other_settings_of_pylate_are_refused(pylate: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="sets query_prefix to 5: it is no text"):
        source_of(pylate(query_prefix=5))
    with pytest.raises(CheckpointError, match="sets depth to 5: this exporter does not know the setting"):
        source_of(pylate(depth=5))


def test_a_folder_of_stanfords_is_refused_by_name(encoder: Path, copy_of: Callable[[Path], Path]) -> None:
    place = copy_of(encoder)
    said = json.loads((place / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    write(place, {"config.json": said, "artifact.metadata": {"query_maxlen": 32}})
    with pytest.raises(TaskError, match=r"a folder of Stanford's ColBERT.*MultiVectorEncoder\(.*save_pretrained"):
        source_of(place)
