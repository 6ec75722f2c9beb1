"""Folders of PEFT adapters: merged into their base, with the answers of PeftModel, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from exporter import ExportRequest, Report
from exporter.loading.loader import Source, load_source
from runtime import load
from runtime.errors import CheckpointError, ExportedModelError, ExtraMissingError, RequestError
from tests.conftest import tiny_model

# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.arange(5, 45).reshape(4, 10)
# Name → the adapter's settings. All start with weights that change the answers.
KINDS: dict[str, Any] = {
    "LORA": peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], init_lora_weights=False),
    "LORA of every linear, scaled by rank": peft.LoraConfig(
        r=4, use_rslora=True, target_modules="all-linear", init_lora_weights=False
    ),
    "LORA with magnitudes": peft.LoraConfig(r=4, use_dora=True, target_modules=["query"], init_lora_weights=False),
    "LORA with biases": peft.LoraConfig(r=4, bias="all", target_modules=["key"], init_lora_weights=False),
    "LORA with a layer of its own": peft.LoraConfig(
        r=4, target_modules=["query"], modules_to_save=["LayerNorm"], init_lora_weights=False
    ),
    "IA3": peft.IA3Config(
        target_modules=["key", "output.dense"], feedforward_modules=["output.dense"], init_ia3_weights=False
    ),
    "LOHA": peft.LoHaConfig(r=4, target_modules=["query"], init_weights=False),
}


@pytest.fixture(scope="module")
def base(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert", "feature-extraction")


def trained(folder: Path, base: Path, config: Any, auto_class: Any = AutoModel, **options: Any) -> Any:
    """Save an adapter for the base in the folder; the model with it, as PEFT loads it."""
    torch.manual_seed(3)
    made = peft.get_peft_model(auto_class.from_pretrained(base, **options), config)
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.rand_like(parameter) * ("lora_magnitude" not in name)
    made.save_pretrained(folder)
    return peft.PeftModel.from_pretrained(auto_class.from_pretrained(base, **options), folder).eval()


def source_of(folder: Path, **options: Any) -> Source:
    return load_source(ExportRequest(model=str(folder), output="unused.pt", **options))


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_gives_the_answers_of_peft(tmp_path: Path, base: Path, kind: str) -> None:
    adapted = trained(tmp_path, base, KINDS[kind])
    source = source_of(tmp_path)
    with torch.no_grad():
        mine, expected = source.model(IDS).last_hidden_state, adapted(IDS).last_hidden_state
        plain = AutoModel.from_pretrained(base)(IDS).last_hidden_state
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)
    assert (expected - plain).abs().max() > 1e-4
    assert source.notes[0].startswith(f"adapter merged in fp32: {kind.split()[0]} in ")


def test_an_adapter_becomes_a_file(tmp_path: Path, base: Path, exported: Callable[..., Report]) -> None:
    """A classifier, whose head only the adapter has, with three labels that its base does not know of."""
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"], init_lora_weights=False)
    adapted = trained(tmp_path, base, config, AutoModelForSequenceClassification, num_labels=3)
    report = exported(tmp_path, backend="plain")
    assert report.manifest.task == "text-classification" and len(report.manifest.labels) == 3
    with torch.no_grad():
        expected = adapted(IDS).logits
    inputs = {"input_ids": IDS, "token_type_ids": torch.zeros_like(IDS)}
    torch.testing.assert_close(load(report.output)(**inputs)["logits"], expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_beside_its_base(tmp_path: Path, base: Path) -> None:
    """transformers would look for another base, and without peft leave the adapter out."""
    adapted = trained(tmp_path, base, KINDS["LORA"])
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "owner/other"}))
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    source = source_of(tmp_path)
    torch.testing.assert_close(source.model(IDS)[0], adapted(IDS)[0], rtol=1e-4, atol=1e-5)
    assert "the weights beside it" in source.notes[0]


def test_the_base_is_named_by_the_user(tmp_path: Path, base: Path) -> None:
    adapted = trained(tmp_path, base, KINDS["LORA"])
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    for named in ("/not/here", "owner/name"):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": named}))
        words = f"PEFT adapter of type LORA for {named}, which cannot be read: there is no .*; give --base-model FOLDER"
        with pytest.raises(CheckpointError, match=words):
            source_of(tmp_path)
    source = source_of(tmp_path, base_model=str(base))
    torch.testing.assert_close(source.model(IDS)[0], adapted(IDS)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match="is no PEFT adapter"):
        source_of(base, base_model=str(base))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (("bert", {"hidden_size": 32}), "does not fit"),
        (("distilbert", {}), "does not fit .* as DistilBertModel"),
        (("bert", {"num_hidden_layers": 1}), "does not fit .*: BertModel has no place for .*layer.1"),
        (("bert", {"num_hidden_layers": 3}), "does not fit .*: BertModel needs more than the adapter holds: .*layer.2"),
    ],
)
def test_an_adapter_for_another_base(tmp_path: Path, base: Path, other: tuple[str, Any], words: str) -> None:
    trained(tmp_path / "adapter", base, KINDS["LORA"])
    tiny_model(other[0], "feature-extraction", **other[1]).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"LORA adapter of adapter {words}.*--base-model FOLDER"):
        source_of(tmp_path / "adapter", base_model=str(tmp_path / "other"))


@pytest.mark.parametrize("kind", [peft.PromptTuningConfig, peft.PrefixTuningConfig])
def test_what_cannot_be_merged(tmp_path: Path, base: Path, kind: Any) -> None:
    config = kind(num_virtual_tokens=4, task_type="FEATURE_EXTRACTION")
    peft.get_peft_model(AutoModel.from_pretrained(base), config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="of type PR.*_TUNING, which cannot be merged: it adds to the inputs"):
        source_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alora_invocation_tokens": [3]}, "only behind certain tokens"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
        ({"init_lora_weights": "pissa"}, "which changes its base"),
        ({"peft_type": None}, "names no peft_type"),
        ({"peft_type": "TOMORROW"}, "does not fit"),
        ({"base_model_name_or_path": None}, "names no base"),
    ],
)
def test_settings_that_are_not_understood(tmp_path: Path, base: Path, change: dict[str, Any], words: str) -> None:
    trained(tmp_path, base, KINDS["LORA"])
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(ExportedModelError, match=words):
        source_of(tmp_path)


def test_half_an_adapter(tmp_path: Path, base: Path) -> None:
    trained(tmp_path, base, KINDS["LORA"])
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match="holds no weights; expected adapter_model.safetensors"):
        source_of(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "away").rename(tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="weights .* and no adapter_config.json"):
        source_of(tmp_path)


def test_without_peft(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, base, KINDS["LORA"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ExtraMissingError, match=r"LORA adapter .* must be merged .*export-model\[adapters\]"):
        source_of(tmp_path)
