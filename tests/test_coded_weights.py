"""Text generation with weights of 8 and 4 bits: rounding, what a file holds, the gate, perplexity, what is refused."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from exporter import Report
from exporter.backends.native import coded
from exporter.backends.native.weight_codes import CodeBook, packed, round_to_4_bits, round_to_8_bits
from exporter.config.request import ExportRequest
from exporter.loading.loader import load_source
from exporter.loading.weight_codes import Codes
from runtime import load
from runtime.errors import BackendError, MetricDropError, RequestError, VerificationError
from runtime.host.native_library import register_native
from tests.conftest import ROOT
from tests.test_generation import TEXTS, greedy, made, own_calls

pytestmark = pytest.mark.cpp


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a trained model's spread, so that rounding changes little; the head is the table of embeddings."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "tie_word_embeddings": True, "initializer_range": 0.1}
    return made(tmp_path_factory.mktemp("llama"), "llama", **sizes)


@pytest.fixture(scope="module")
def reports(folder: Path, exported: Callable[..., Report]) -> dict[str, Report]:
    return {
        "fp32": exported(folder, backend="native"),
        "int8": exported(folder, precision="int8"),
        "int4": exported(folder, precision="int4"),
    }


def rounded(folder: Path, precision: str) -> Any:
    """transformers' model, its weights rounded as the export does."""
    source = load_source(ExportRequest(model=str(folder), output="unused.pt"))
    coded.CodedBackend(32).round_weights(source.model, precision)  # type: ignore[arg-type]
    return source.model


# Rounding


def test_codes_of_8_bits_are_the_nearest() -> None:
    weight = torch.randn(40, 37, generator=torch.Generator().manual_seed(1))
    weight[3] = 0
    found = round_to_8_bits(weight)
    assert ((found.numbers - weight).abs() <= found.scales[:, None] * 0.5001).all()
    assert (found.numbers[3] == 0).all()


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("inputs", [32, 128, 200, 7])
def test_codes_of_4_bits_err_little(group: int, inputs: int) -> None:
    weight = torch.randn(40, inputs, generator=torch.Generator().manual_seed(1)) * 0.02
    found = round_to_4_bits(weight, group)
    assert found.codes.max() <= 15 and found.codes.dtype == torch.uint8
    padded = torch.nn.functional.pad(weight, (0, -inputs % group)).unflatten(1, (-1, group))
    steps = (padded.amax(2).clamp(min=0) - padded.amin(2).clamp(max=0)) / 15
    steps = steps.repeat_interleave(group, 1)[:, :inputs]
    # Two steps at the ends, of which a narrower range may cut some; and less in the mean than the whole range gives.
    assert ((found.numbers - weight).abs() <= steps * 2).all()
    whole = (weight / steps).round() * steps
    assert (found.numbers - weight).square().mean() < 1.01 * (whole - weight).square().mean()


def test_groups_that_have_no_range() -> None:
    weight = torch.zeros(4, 64)
    weight[1, :32], weight[2] = 0.5, -3.0
    weight[3] = 1e-9
    found = round_to_4_bits(weight, 32).numbers
    torch.testing.assert_close(found[:3], weight[:3], rtol=2e-3, atol=0)
    assert found[3].abs().max() < 1e-6
    for wrong in (1e7, math.inf, math.nan):
        weight[0, 0] = wrong
        with pytest.raises(BackendError, match="too large for int4, or not finite"):
            round_to_4_bits(weight, 32)


def test_a_weight_is_found_again_by_its_rows() -> None:
    book = CodeBook()
    generator = torch.Generator().manual_seed(1)
    first, second, eight = torch.randn(3, 20, 64, generator=generator).unbind(0)
    numbers = [book.add(round_to_4_bits(each, 32)) for each in (first, second)]
    joined = torch.cat([numbers[1], numbers[0]])
    found = book.find(joined)
    assert found is not None and torch.equal(found.numbers, joined)
    wrong = joined.clone()
    wrong[7, 3] += 1e-6
    assert book.find(wrong) is None
    # Rows of two kinds have no common form.
    assert book.find(torch.cat([numbers[0], book.add(round_to_8_bits(eight))])) is None


def test_the_layout_is_what_the_operator_reads() -> None:
    """Against the plain product, in both widths, for sizes that fill no panel."""
    register_native()
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(70, 45, generator=generator), torch.randn(3, 45, generator=generator)
    for codes in (round_to_8_bits(weight), round_to_4_bits(weight, 32)):
        found = torch.ops.em_native.linear_codes(x, *packed(codes), None, None, 70, codes.group, "none")
        torch.testing.assert_close(found, x @ codes.numbers.t(), rtol=1e-5, atol=1e-5)


# Files


def test_files_are_smaller_and_hold_the_codes_once(reports: dict[str, Report]) -> None:
    sizes = {name: report.size for name, report in reports.items()}
    assert sizes["int4"] < sizes["int8"] < sizes["fp32"]
    for name in ("int8", "int4"):
        report = reports[name]
        assert (report.manifest.precision, report.manifest.backend) == (name, "native")
        assert any("% in int8" in choice and (name == "int8") != ("% in int4" in choice) for choice in report.choices)
        with zipfile.ZipFile(report.output) as archive:
            tables = [one for one in archive.infolist() if one.file_size == 13 * 32 * 64]
        # 400 rows fill 13 panels: the head and the table of embeddings share them.
        assert len(tables) == 1
        generation = report.manifest.generation
        assert generation is not None
        assert [one.dtype for one in generation.caches] == ["float32"] * 4


def test_additions_are_the_linears_own(reports: dict[str, Report]) -> None:
    """Of two layers with two linears each whose output is added; the first is added to what the table gives."""
    for name in ("int8", "int4"):
        detail = next(stage.detail for stage in reports[name].stages if "placed" in stage.detail)
        assert f"4 linear+add in {name}" in detail, detail
    assert "4 linear+add" in next(stage.detail for stage in reports["fp32"].stages if "placed" in stage.detail)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_tokens_are_those_of_the_rounded_model(precision: str, folder: Path, reports: dict[str, Report]) -> None:
    model, session = rounded(folder, precision), load(reports[precision].output)
    for text, found in zip(TEXTS, session.text.generate(TEXTS, max_new_tokens=20), strict=True):
        assert list(found.ids) == greedy(model, folder, text, 20)
    ids = torch.randint(3, 390, (3, 41), generator=torch.Generator().manual_seed(1))
    original = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(session(input_ids=ids)["logits"], model(ids).logits, rtol=1e-4, atol=1e-4)
        # Rounded indeed.
        assert not torch.allclose(session(input_ids=ids)["logits"], original(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "gemma2", "gpt_neox", "bloom"])
def test_other_architectures(kind: str, tmp_path: Path, exported: Callable[..., Report]) -> None:
    """The gate of the export compares with the rounded model; here that most of the weights are codes."""
    folder = made(tmp_path / kind, kind)
    report = exported(folder, precision="int8", max_length=64)
    calls = own_calls(report)
    assert calls["linear_codes"] >= 7 and calls["embed_codes"] >= 1


def test_a_wrong_scale_is_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate, against codes that are off by less than the tolerance of int4."""

    def off(codes: Codes) -> Any:
        numbers, scales, zeros = packed(codes)
        return numbers, scales * 1.01, zeros

    monkeypatch.setattr(coded, "packed", off)
    from exporter import export

    with pytest.raises(VerificationError, match=r"decode is wrong in .* of its cases \(from the rounded model\)"):
        export(ExportRequest(model=str(folder), output=tmp_path / "model.pt", precision="int4", tune="off"))


# Perplexity


def test_perplexity_is_told_and_judged(folder: Path, tmp_path: Path, exported: Callable[..., Report]) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\n\n".join((ROOT / "LICENSE").read_text().splitlines()[4:9]) + "\nx\n")
    report = exported(folder, precision="int8", evaluate=str(lines), max_perplexity_rise=1000.0)
    assert report.metrics is not None
    model, total, count = AutoModelForCausalLM.from_pretrained(folder).eval(), 0.0, 0
    for text in filter(str.strip, lines.read_text().splitlines()):
        ids = load(report.output).text.encode([text])["input_ids"]
        if ids.shape[1] > 1:
            with torch.no_grad():
                total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    assert report.metrics.model["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert report.metrics.artifact["perplexity"] == pytest.approx(report.metrics.model["perplexity"], rel=0.2)
    assert report.metrics.artifact["perplexity"] != report.metrics.model["perplexity"]
    with pytest.raises(
        MetricDropError, match=r"perplexity on .* is .*, .* % above the model's .*at most 1e-09 % above"
    ):
        # Of two precisions one has more than the original, or both are told to be below it.
        for precision in ("int4", "int8"):
            exported(folder, precision=precision, evaluate=str(lines), max_perplexity_rise=1e-9)


# What is refused


def test_what_int4_is_not_for(folder: Path, tmp_path: Path, exported: Callable[..., Report]) -> None:
    for precision in ("int8", "int4"):
        for backend in ("onednn", "plain", "stock"):
            with pytest.raises(RequestError, match="is not available with|no calibration is given"):
                exported(folder, precision=precision, backend=backend)
    for precision in ("int8", "int4"):
        wanted = f"{precision} is not available with --backend plain for text-generation: PyTorch's own operators"
        with pytest.raises(RequestError, match=wanted):
            exported(folder, precision=precision, backend="plain", task="text-generation")
    with pytest.raises(RequestError, match="precision is int4 and task is text-generation-scoring; .* text-generation"):
        exported(folder, precision="int4", task="text-generation-scoring")
    with pytest.raises(RequestError, match="int4_group is 48; expected 32 or 128"):
        ExportRequest(model="x", output="y.pt", precision="int4", int4_group=48)
    with pytest.raises(RequestError, match="int4_group is given and precision is int8"):
        ExportRequest(model="x", output="y.pt", precision="int8", int4_group=128)
    samples = tmp_path / "lines.txt"
    samples.write_text("text\n" * 20)
    with pytest.raises(RequestError, match="rounds weights alone, without samples"):
        exported(folder, precision="int8", calibration=str(samples), backend="native")
    with pytest.raises(RequestError, match="max_perplexity_rise is given and evaluate is not"):
        ExportRequest(model="x", output="y.pt", max_perplexity_rise=1.0)


def test_int4_of_an_encoder_is_refused(tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> None:
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    with pytest.raises(RequestError, match="precision is int4 and task is text-classification"):
        exported(folder, precision="int4")
    with pytest.raises(RequestError, match="precision is int8 and no calibration is given"):
        exported(folder, precision="int8")


def test_a_group_of_128_is_smaller(folder: Path, reports: dict[str, Report], exported: Callable[..., Report]) -> None:
    wide = exported(folder, precision="int4", int4_group=128)
    assert wide.size < reports["int4"].size
    assert json.loads(json.dumps(wide.as_dict()))["manifest"]["precision"] == "int4"
