"""Modules that are a model's own code: run by the library if the user trusts them, refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from exporter import Report
from runtime import load
from runtime.errors import CheckpointError, ModelFailedError, RemoteCodeError
from tests.conftest import byte_level, tiny_model
from tests.test_settings import ARCHIVE, SIZES, TEXTS, modules, source_of, write

CODE = """
import torch
from sentence_transformers.base.modules import Module

class Weighing(Module):
    config_keys = ["power"]

    def __init__(self, power=2.0):
        super().__init__()
        self.power = power

    def forward(self, features, **kwargs):
        mask = features["attention_mask"].unsqueeze(-1).float()
        weights = mask * features["token_embeddings"].norm(dim=-1, keepdim=True) ** self.power
        total = (features["token_embeddings"] * weights).sum(1)
        features["sentence_embedding"] = total / weights.sum(1)
        return features

    def save(self, output_path, *args, **kwargs):
        self.save_config(output_path)

class Reading(Weighing):
    def forward(self, features, **kwargs):
        features["sentence_embedding"] = features["token_embeddings"] * features["input_ids"].unsqueeze(-1)
        return features

class Silent(Weighing):
    def forward(self, features, **kwargs):
        return features
"""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(kind: str, *more: str, **archive: Any) -> Path:
        tiny_model("roberta", "feature-extraction", **SIZES).save_pretrained(tmp_path)
        byte_level(tmp_path)
        (tmp_path / "weighing.py").write_text(CODE)
        files = {
            "modules.json": modules("Transformer", f"weighing.{kind}", *more),
            f"1_{kind}/config.json": {"power": 1.5},
        }
        write(tmp_path, files | {ARCHIVE: archive})
        return tmp_path

    return make


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_a_pooling_of_its_own(folder: Callable[..., Path], exported: Callable[..., Report], backend: str) -> None:
    place = folder("Weighing", "Normalize", truncate_dim=24)
    report = exported(place, backend=backend, trust_remote_code=True, verify="quick")
    text = load(report.output).text
    library = SentenceTransformer(str(place), device="cpu", trust_remote_code=True)
    expected = library.encode(TEXTS, convert_to_tensor=True)
    assert expected.shape[1] == 24
    torch.testing.assert_close(torch.stack(text.embed(TEXTS, truncate=True)), expected, atol=2e-5, rtol=1e-4)


def test_code_does_not_run_without_leave(folder: Callable[..., Path], tmp_path: Path) -> None:
    place = folder("Weighing")
    (place / "weighing.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + CODE)
    with pytest.raises(RemoteCodeError, match=r"names weighing\.Weighing: the model's own code.*--trust-remote-code"):
        source_of(place)
    assert not (tmp_path / "ran").exists()


def test_modules_that_need_more_than_vectors(folder: Callable[..., Path], exported: Callable[..., Report]) -> None:
    with pytest.raises(ModelFailedError, match="KeyError: 'input_ids'"):
        exported(folder("Reading"), backend="plain", trust_remote_code=True, verify="off")
    with pytest.raises(CheckpointError, match="make no sentence_embedding of a vector per text"):
        exported(folder("Silent"), backend="plain", trust_remote_code=True, verify="off")


def test_own_code_in_other_places_is_refused(folder: Callable[..., Path]) -> None:
    place = folder("Weighing")
    write(place, {"modules.json": modules("weighing.Weighing", "Pooling")})
    with pytest.raises(CheckpointError, match=r"a SentenceTransformer of weighing\.Weighing, Pooling"):
        source_of(place, trust_remote_code=True)
