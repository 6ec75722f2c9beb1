"""Models that TorchScript or IPEX would get wrong without an error: mended or refused, never wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import ExportRequest, export
from exporter.adapter import adapt
from exporter.inputs import make_inputs
from exporter.plan import make_plan
from exporter.quiet import third_parties_quiet
from exporter.source import load_source
from exporter.trace import trace
from exporter.verify import reference_points, verify
from runtime import artifact, load
from runtime.errors import VerificationError
from runtime.golden import dump_cases
from runtime.manifest import GOLDEN_FILE

Folder = Callable[..., Path]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tied_decoder(tiny_folder: Folder, exported: Callable[..., Any], precision: str) -> None:
    """IPEX packs a linear whose weight is an embedding's for the sizes of one call; others gave garbage."""
    folder = tiny_folder("bert", "fill-mask", vocab_size=1000, hidden_size=128, intermediate_size=256)
    report = exported(folder, precision=precision, backend="ipex")
    source = load_source(ExportRequest(str(folder), "unused.pt"))
    decoder = source.model.get_output_embeddings()
    assert decoder.weight is source.model.get_input_embeddings().weight  # the trap is set
    session = load(report.output, warmup=False)
    plan = make_plan(source, ExportRequest(str(folder), "unused.pt"))
    tolerance = session.manifest.tolerance.max_error
    for batch, length in [(1, 8), (2, 16), (1, 8), (4, 3), (1, 8)]:
        inputs = make_inputs(plan, batch, length).as_dict()
        with torch.no_grad():
            expected = source.model(**inputs).logits
        error = (session(**inputs)["logits"] - expected).abs().max() / expected.abs().max()
        assert error <= tolerance, (batch, length)


class Wrong(torch.nn.Module):
    """A model that is right at the traced shape and wrong at others, as a baked-in decision makes it."""

    def __init__(self, adapter: torch.nn.Module, fault: str) -> None:
        super().__init__()
        self.adapter, self.fault = adapter, fault

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        answers = self.adapter(input_ids, attention_mask, token_type_ids)
        if self.fault == "writes":
            input_ids.add_(0 * attention_mask).clamp_(max=100)
        if self.fault == "short" and input_ids.shape[1] < 10:  # a Python decision: the trace keeps one side
            answers = tuple(answer * 0 for answer in answers)
        if self.fault == "mask":
            answers = self.adapter(input_ids, torch.ones_like(attention_mask), token_type_ids)
        return answers


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("mask", "wrong at .*padded"),
        ("short", "wrong at 0-1x8"),
        ("writes", "wrote to its caller's input 'input_ids'"),
    ],
)
def test_the_gate_sees(
    tiny_folder: Folder, exported: Callable[..., Any], tmp_path: Path, fault: str, message: str
) -> None:
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    request = ExportRequest(str(folder), "unused.pt")
    source = load_source(request)
    plan = make_plan(source, request)
    adapter = adapt(source, plan)
    points = reference_points(adapter, plan, adapter.outputs)
    if fault == "short":
        # The reference branches on the length; the trace, made at 128, cannot.
        points = [
            dataclasses.replace(
                point,
                case=dataclasses.replace(point.case, outputs={"logits": point.case.outputs["logits"] * 0})
                if point.shape["sequence"] < 10
                else point.case,
            )
            for point in points
        ]
    with third_parties_quiet():
        example = make_inputs(plan, plan.batch, plan.sequence)
        traced = trace(Wrong(adapter, fault).eval(), example, "tuple", nullcontext())
    draft = tmp_path / "model.pt"
    artifact.save(traced.module, draft, {GOLDEN_FILE: dump_cases([points[0].case])})
    manifest = exported(folder, backend="plain").manifest
    with pytest.raises(VerificationError, match=message):
        verify(draft, manifest, points)


def test_the_gate_lets_a_right_one_pass(tiny_folder: Folder, exported: Callable[..., Any]) -> None:
    report = exported(tiny_folder("bert", "text-classification", num_labels=3), backend="plain")
    assert {point.calls for point in report.manifest.verified} == {3}


def test_a_file_on_which_a_process_dies(tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the fresh process is a finding, not a crash of the exporter."""
    from exporter import verify as module

    monkeypatch.setattr(module, "_WORKER", "import os; os.kill(os.getpid(), 11) # {}")
    with pytest.raises(VerificationError, match="died of signal 11"):
        export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain"))
    assert list(tmp_path.iterdir()) == []
