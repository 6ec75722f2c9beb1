"""Patches: each repairs a trace that would keep a decision of its example, and without it the export is not whole."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from exporter import ExportRequest, Report, export
from exporter.loading.loader import load_source
from exporter.pipeline import plan_and_adapt
from exporter.tracing import patches
from exporter.tracing.patches import autograd_functions, canine, experts, funnel, longformer, xvector
from exporter.verification.reference import reference_cases
from runtime.errors import ExportError, ModelFailedError, TraceError, VerificationError

transformers = pytest.importorskip(
    "transformers", minversion="5.0", reason="tests.model_matrix.tiny builds from its tables"
)

from tests.model_matrix.one import export_pair, probe_pair  # noqa: E402 (behind the skip)
from tests.model_matrix.pairs import Pair, all_pairs, sample  # noqa: E402
from tests.model_matrix.tiny import tiny_model  # noqa: E402

PATCHED = {
    "canine text-classification": canine.WHAT,
    "funnel token-classification": funnel.WHAT,
    "led question-answering": longformer.WHAT,
    "longformer text-classification": longformer.WHAT,
    "openai_privacy_filter token-classification": experts.WHAT,
    "data2vec-audio audio-xvector": xvector.WHAT,
    "yoso text-classification": autograd_functions.WHAT,
}
QUICK = "longformer text-classification"
QUICKEST_FIRST = [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in PATCHED if name != QUICK)]
# Models whose graph IPEX fails on unless it is written down in another form (exporter/backends/ipex/backend.py).
REFORMED = {
    "swinv2 image-classification": "a scale for each head, in front of the scores",
    "wavlm audio-classification": "a weight for each of query, key and value",
    "lasr_ctc automatic-speech-recognition": "a convolution with an even kernel that keeps the length",
}


def pair(name: str) -> Pair:
    return next(pair for pair in all_pairs() if pair.name == name)


def exported(name: str, folder: Path) -> Report:
    tiny_model(pair(name).model_type, pair(name).architecture).save_pretrained(folder)
    return export(ExportRequest(str(folder), folder / "model.pt", task=pair(name).task, backend="ipex"))


def varying(report: Report) -> list[str]:
    """The axes of the inputs that admit more than one size."""
    return sorted({axis.name for spec in report.manifest.inputs for axis in spec.axes if axis.minimum != axis.maximum})


@pytest.mark.parametrize("name", QUICKEST_FIRST)
def test_a_patched_model_is_right_at_every_size(name: str, tmp_path: Path) -> None:
    report = exported(name, tmp_path)
    assert f"repaired: {PATCHED[name]}" in report.choices
    assert not any(choice.startswith("excluded") for choice in report.choices)
    assert varying(report) == ["batch", "samples" if "audio" in name else "sequence"]
    assert probe_pair(pair(name), "fp32", tmp_path) == ("right", "")


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No patch at all, and none left from an earlier export of this process: functions of a class keep theirs."""
    from transformers.models.yoso.modeling_yoso import YosoCumulation

    monkeypatch.setattr(patches, "PATCHES", {})
    if "apply" in vars(YosoCumulation):
        monkeypatch.delattr(YosoCumulation, "apply")


@pytest.mark.parametrize("name", QUICKEST_FIRST)
@pytest.mark.usefixtures("unpatched")
def test_without_its_patch_it_is_not(name: str, tmp_path: Path) -> None:
    """The patches earn their place: what they repair is refused, or right at fewer sizes."""
    try:
        report = exported(name, tmp_path)
    except ExportError:
        assert not (tmp_path / "model.pt").exists()
    else:
        assert any(choice.startswith("excluded") for choice in report.choices)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFORMED)
def test_a_form_that_ipex_computes(name: str, tmp_path: Path) -> None:
    report = exported(name, tmp_path)
    assert report.manifest.backend == "ipex" and {1, 2, 3} <= {p.shape["batch"] for p in report.manifest.verified}
    assert probe_pair(pair(name), "fp32", tmp_path) == ("right", "")


@pytest.mark.slow
def test_the_tolerance_follows_the_models_own_rounding(tmp_path: Path) -> None:
    """Where two of PyTorch's kernels differ in the original, a file is held to eight times that, and says so."""
    report = exported("detr image-segmentation", tmp_path)
    tolerance = report.manifest.tolerance
    assert 1e-4 < tolerance.max_error <= 1e-3 and any("tolerance widened" in choice for choice in report.choices)
    assert all(point.max_error <= tolerance.max_error for point in report.manifest.verified)
    usual = exported("bert text-classification", tmp_path / "bert")
    assert usual.manifest.tolerance.max_error == 1e-4 and not any("widened" in choice for choice in usual.choices)


@pytest.mark.usefixtures("unpatched")
def test_a_call_of_python_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="the model calls YosoCumulation, Python code that a file cannot hold"):
        exported("yoso text-classification", tmp_path)


def test_a_model_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    """Reformer hashes with new random vectors at every call."""
    with pytest.raises(ModelFailedError, match="gives different outputs for the same inputs"):
        exported("reformer text-classification", tmp_path)


# What torch says of that deviation while the original model computes it.
@pytest.mark.filterwarnings(r"ignore:std\(\). degrees of freedom:UserWarning")
def test_sizes_at_which_the_model_answers_nan_are_given_up(tmp_path: Path) -> None:
    """The deviation of a single frame is no number."""
    name = "wavlm audio-xvector"
    tiny_model("wavlm", pair(name).architecture).save_pretrained(tmp_path)
    request = ExportRequest(str(tmp_path), tmp_path / "model.pt", task="audio-xvector")
    source = load_source(request)
    plan, adapter = plan_and_adapt(source, request)
    plan, points = reference_cases(adapter, plan, adapter.outputs, "quick")
    least = plan.dimensions["samples"].axis.minimum
    assert any(f"samples shorter than {least}" in choice for choice in plan.choices)
    assert all(tensor.isfinite().all() for point in points for tensor in point.golden.outputs.values())
    short = torch.randn(1, least - 1)
    with torch.no_grad():
        answers = adapter(input_values=short)
    assert any(not answer.isfinite().all() for answer in answers)


def test_pairs_and_samples() -> None:
    pairs = all_pairs()
    kinds = {pair.model_type: pair.kind for pair in pairs}
    assert (kinds["bert"], kinds["vit"], kinds["wav2vec2"], kinds["clip"]) == ("encoder",) * 4
    assert (kinds["llama"], kinds["t5"], kinds["whisper"], kinds["llava"]) == ("generator",) * 4
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert sample(60, 0) == sample(60, 0) != sample(60, 1)
    assert {pair.kind for pair in sample(60, 0)} == {"encoder"}


def test_a_row_tells_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that is right, one that no model can be built for, and an artifact that is made wrong after the gate."""
    row = export_pair(pair("bert text-classification"), "fp32", tmp_path / "bert")
    assert (row.result, row.reason) == ("right", "") and row.max_error is not None and row.max_error < 1e-4
    layoutlmv2 = export_pair(pair("layoutlmv2 text-classification"), "fp32", tmp_path / "layout")
    assert layoutlmv2.result == "no model" and "detectron2" in layoutlmv2.reason
    bert: Any = transformers.BertModel
    monkeypatch.setattr(bert, "forward", _shifted(bert.forward))
    result, reason = probe_pair(pair("bert text-classification"), "fp32", tmp_path / "bert")
    assert result == "wrong" and "max error" in reason


def _shifted(forward: Any) -> Any:
    def shifted(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = forward(self, *args, **kwargs)
        answer.pooler_output = answer.pooler_output + 0.5
        return answer

    return shifted


@pytest.mark.slow
def test_mixtures_of_experts_in_bf16_are_tried_at_more_shapes(tmp_path: Path) -> None:
    """Rounded otherwise, a token may choose another expert: seven shapes passed, and the eighth was wrong."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "mixtral", vocab_size=300, num_key_value_heads=2, num_local_experts=4, max_position_embeddings=64, **sizes
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    request = ExportRequest(str(tmp_path), tmp_path / "m.pt", precision="bf16", backend="plain", max_length=64)
    stages: list[Any] = []
    # Whether the file passes is the gate's to say.
    with suppress(VerificationError):
        export(request, stages.append)
    (note,) = [stage.detail for stage in stages if stage.name == "reference" and stage.detail]
    assert "more shapes, for a rounding may choose another expert" in note and note.count(" 5x") > 3
