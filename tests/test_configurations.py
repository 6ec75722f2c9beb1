"""Configurations that are damaged, absurd, or ask for another form of the same answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from exporter import ExportRequest, export
from exporter.backends.candidates import list_candidates
from exporter.loading.loader import load_source
from exporter.loading.size_limits import check_sizes
from exporter.selection.hints import with_remedy
from runtime.errors import CheckpointError, TraceError, VerificationError
from runtime.host import requirements

Folder = Callable[..., Path]


def changed(folder: Path, target: Path, **said: Any) -> ExportRequest:
    """A copy of a model folder whose config.json says something else too."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | said))
    return ExportRequest(str(target), target / "m.pt", backend="plain", tune="off", verify="quick")


@pytest.mark.parametrize("value", [10**9, 10**12, -32, "768", 2.5, float("nan"), True])
@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size"])
def test_a_size_that_is_none(tiny_folder: Folder, tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"{key}|Embedding.weight"):
        load_source(changed(tiny_folder(), tmp_path / "model", **{key: value}))


def test_a_size_in_a_part_of_the_configuration() -> None:
    for said in ({"text_config": {"num_hidden_layers": 10**9}}, {"a": {"vision_config": {"depths": [2, 10**9]}}}):
        with pytest.raises(CheckpointError, match=r"config\.json of m says (text_config|a\.vision_config)\.\w+ 10{9};"):
            check_sizes(said, "m")


@pytest.mark.parametrize(
    "said", [{"hidden_size": 10**8}, {"max_position_embeddings": 10**9}, {"intermediate_size": 10**9}]
)
def test_a_model_far_larger_than_its_weights(tiny_folder: Folder, tmp_path: Path, said: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match="at least [0-9]+ parameters .* as belong to weight files of"):
        load_source(changed(tiny_folder(), tmp_path / "model", **said))
    # Nothing is left behind that would count the next model's.
    assert load_source(ExportRequest(str(tiny_folder()), tmp_path / "m.pt")).info.parameters > 0


def test_what_transformers_itself_says_is_admitted() -> None:
    for kind in ("bert", "llama", "siglip", "swin", "llava", "deberta-v2", "wav2vec2", "t5", "gemma3", "beit"):
        check_sizes(json.loads(transformers.AutoConfig.for_model(kind).to_json_string(use_diff=False)), kind)


@pytest.mark.parametrize("said", [{"return_dict": False}, {"torchscript": True}])
def test_outputs_without_names(tiny_folder: Folder, tmp_path: Path, said: dict[str, bool]) -> None:
    """The same answers, in another form: an export asks for the names."""
    model = load_source(changed(tiny_folder(), tmp_path / "model", **said)).model
    with torch.no_grad():
        assert model(input_ids=torch.ones(1, 4, dtype=torch.int64)).logits.shape[0] == 1


@pytest.mark.slow
def test_the_encoder_of_t5_alone(tmp_path: Path) -> None:
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, vocab_size=100, decoder_start_token_id=0
    )
    torch.manual_seed(1)
    transformers.T5EncoderModel(config).save_pretrained(tmp_path / "model")
    request = ExportRequest(str(tmp_path / "model"), tmp_path / "m.pt", backend="plain", tune="off", verify="quick")
    manifest = export(request).manifest
    assert manifest.task == "feature-extraction" and manifest.model.architecture == "T5EncoderModel"
    assert [spec.name for spec in manifest.inputs] == ["input_ids", "attention_mask"]


def test_what_to_try_next_was_not_tried(tiny_folder: Folder, tmp_path: Path) -> None:
    from exporter.shapes.trace_plan import make_plan

    here = requirements.detect()
    for backend, precision, tune, error, expected in (
        (
            "plain",
            "fp32",
            "off",
            VerificationError,
            "try --tune full, which also tries PyTorch's own attention",
        ),
        ("plain", "fp32", "full", VerificationError, "no option is left to try: report the model"),
        ("plain", "fp32", "full", TraceError, "try another --sequence-length"),
        ("plain", "bf16", "full", VerificationError, "try --fp32"),
        ("auto", "fp32", "full", VerificationError, "no option is left to try: report the model"),
    ):
        request = ExportRequest(
            str(tiny_folder()),
            tmp_path / "m.pt",
            backend=backend,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            tune=tune,  # type: ignore[arg-type]
            padding="keep",
        )
        tried = list_candidates(backend, here, request.tune, request.precision, "keep")
        plan = make_plan(load_source(request), request)
        found = with_remedy([(way, error("wrong", "right")) for way in tried], request, plan)
        assert type(found) is error and str(found) == f"wrong; expected right; nothing was written; {expected}"
