"""Sparse models (SPLADE): the weights are those of the library's SparseEncoder, by tensor and by token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from exporter import Report
from runtime import load
from runtime.errors import CheckpointError, InputTaskError, InputTextError, TaskError
from tests.conftest import BIN, byte_level, run, tiny_model
from tests.test_settings import ARCHIVE, SIZES, TEXTS, modules, outputs, source_of, write

OLD = "sentence_transformers.sparse_encoder.models."


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that fills masks, without modules.json."""
    folder = tmp_path_factory.mktemp("masked")
    tiny_model("roberta", "fill-mask", **SIZES).save_pretrained(folder)
    byte_level(folder)
    return folder


@pytest.fixture
def folder(masked: Path, tmp_path: Path) -> Callable[..., Path]:
    """That model as a sparse one, with the files given."""

    def make(files: dict[str, Any]) -> Path:
        for file in masked.iterdir():
            (tmp_path / file.name).symlink_to(file)
        usual = {
            "modules.json": modules(OLD + "MLMTransformer", OLD + "SpladePooling"),
            "1_SpladePooling/config.json": {},
        }
        write(tmp_path, usual | {ARCHIVE: {"model_type": "SparseEncoder"}} | files)
        return tmp_path

    return make


def library(folder: Path, texts: list[str] = TEXTS, **options: Any) -> torch.Tensor:
    model = SparseEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    found: torch.Tensor = model.encode(texts, convert_to_sparse_tensor=False, **options)
    return found


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_weights_are_those_of_the_library(folder: Callable[..., Path], strategy: str, activation: str) -> None:
    said = {"pooling_strategy": strategy, "activation_function": activation, "word_embedding_dimension": None}
    place = folder({"1_SpladePooling/config.json": said})
    source = source_of(place)
    assert source.task.name == "sparse-embedding" and "modules.json" in source.task_reason
    expected = library(place)
    assert 0.1 < (expected > 0).float().mean() < 0.999
    torch.testing.assert_close(outputs(source, TEXTS), expected, atol=2e-5, rtol=1e-4)


def test_a_folder_that_the_library_saves_today(masked: Path, tmp_path: Path, exported: Callable[..., Report]) -> None:
    """From the folder to tokens with weights, with a prompt, alone and in a batch."""
    transformer = Transformer(str(masked), transformer_task="fill-mask", processor_kwargs={"model_max_length": 64})
    made = SparseEncoder(modules=[transformer, SpladePooling("max")], prompts={"query": "As is: "}, device="cpu")
    made.default_prompt_name = "query"
    made.save_pretrained(str(tmp_path / "saved"))
    expected = library(tmp_path / "saved")
    report = exported(tmp_path / "saved", backend="plain")
    session = load(report.output)
    assert session.manifest.task == "sparse-embedding"
    assert [axis.name for axis in session.manifest.outputs[0].axes] == ["batch", "vocabulary"]
    torch.testing.assert_close(torch.stack(session.text.embed(TEXTS, truncate=True)), expected, atol=2e-5, rtol=1e-4)
    rows = session.text.embed_sparse(TEXTS, truncate=True)
    for row, found, text in zip(expected, rows, TEXTS, strict=True):
        wanted = dict(made.decode(row, top_k=5))  # type: ignore[arg-type]
        assert list(found)[:5] == list(wanted) and list(found.values())[:5] == pytest.approx(list(wanted.values()))
        assert len(found) == int((row > 0).sum())
        alone = session.text.embed_sparse([text], top_k=5, truncate=True)[0]
        assert list(alone) == list(wanted) and list(alone.values()) == pytest.approx(list(wanted.values()))
    (named,) = session.text.embed_sparse(TEXTS[:1], prompt_name="query")
    assert named == session.text.embed_sparse(TEXTS[:1])[0]
    (document,) = session.text.embed(TEXTS[:1], prompt_name="document")
    torch.testing.assert_close(document, library(tmp_path / "saved", TEXTS[:1], prompt="")[0], atol=2e-5, rtol=1e-4)
    with pytest.raises(InputTextError, match="prompt_name is 'title'; expected one of the model's prompts: query"):
        session.text.embed_sparse(TEXTS, prompt_name="title")
    with pytest.raises(InputTaskError, match="dimensions on an artifact for sparse-embedding"):
        session.text.embed(TEXTS, dimensions=5)
    both = library(tmp_path / "saved", TEXTS)
    torch.testing.assert_close(session.text.similarity(both, both), made.similarity(both, both))
    done = run([BIN / "run-model", "predict", report.output, "--text", TEXTS[0], "--prompt-name", "document"])
    bare = session.text.embed_sparse(TEXTS[:1], prompt="")[0]
    # A process of its own: other memory, and other orders of sums.
    assert json.loads(done.stdout)["sparse_embedding"] == pytest.approx(bare, rel=1e-5, abs=1e-5)
    wanted = dict(made.decode(library(tmp_path / "saved", TEXTS[:1], prompt="")[0]))  # type: ignore[arg-type]
    assert bare == pytest.approx(wanted, abs=2e-5)
    with pytest.raises(InputTextError, match="top_k is 0"):
        session.text.embed_sparse(TEXTS, top_k=0)
    with pytest.raises(InputTaskError, match="expected an artifact for fill-mask; call embed_sparse"):
        session.text.fill(["a <mask>"])


def test_the_command_prints_tokens_with_weights(masked: Path, exported: Callable[..., Report]) -> None:
    """Without modules.json the task is asked for; the head is the library's usual one."""
    output = exported(masked, backend="plain", task="sparse-embedding", verify="off").output
    done = run([BIN / "run-model", "predict", output, "--text", TEXTS[0], "--top-k", "3"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["sparse_embedding"]
    row = library(masked, TEXTS[:1])[0].topk(3).values.tolist()
    assert list(found.values()) == pytest.approx(row)


def test_another_task_leaves_the_modules_aside(folder: Callable[..., Path]) -> None:
    assert source_of(folder({}), task="fill-mask").sentence_head is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"1_SpladePooling/config.json": {"pooling_strategy": "mean"}},
            "pooling_strategy to 'mean': known are max, sum",
        ),
        ({"1_SpladePooling/config.json": {"activation_function": "gelu"}}, "activation_function to 'gelu'"),
        ({"1_SpladePooling/config.json": {"temperature": 2}}, "temperature to 2: this exporter does not know"),
        ({ARCHIVE: {"model_type": "SparseEncoder", "max_active_dims": 64}}, "max_active_dims to 64: it zeroes"),
        ({"modules.json": modules("Transformer", OLD + "SpladePooling")}, "a SparseEncoder is one of fill-mask"),
        (
            {"modules.json": modules("Transformer", "Pooling", OLD + "SparseAutoEncoder")},
            "a SparseEncoder of Transformer, Pooling, SparseAutoEncoder",
        ),
        ({"modules.json": modules("Router")}, "a SparseEncoder of Router"),
        ({"modules.json": modules(OLD + "SparseStaticEmbedding")}, "a SparseEncoder of SparseStaticEmbedding"),
    ],
)
def test_other_sparse_models_are_refused_by_name(
    folder: Callable[..., Path], files: dict[str, Any], words: str
) -> None:
    place = folder(files)
    if "Router" in words or "Static" in words:
        (place / "config.json").unlink()
    with pytest.raises(CheckpointError, match=words):
        source_of(place)


def test_a_dense_model_is_not_made_sparse(folder: Callable[..., Path]) -> None:
    place = folder({"modules.json": modules("Transformer", "Pooling"), ARCHIVE: {}})
    with pytest.raises(TaskError, match="describes a SentenceTransformer, for sentence-embedding"):
        source_of(place, task="sparse-embedding")
