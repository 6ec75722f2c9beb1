"""Models that TorchScript or IPEX would get wrong without an error: mended or refused, never wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter.tracing.adapter
from exporter import ExportRequest, export
from exporter.backends.ipex.backend import IpexBackend
from exporter.config.tolerances import TOLERANCES
from exporter.loading.loader import load_source
from exporter.loading.third_party_logs import third_parties_quiet
from exporter.shapes.example_inputs import ExampleInputs, make_inputs
from exporter.shapes.narrowing import narrow
from exporter.shapes.trace_plan import TracePlan, make_plan
from exporter.tracing.adapter import Adapter, adapt, with_signature
from exporter.tracing.trace import trace
from exporter.verification.reference import VerificationCase, reference_cases
from exporter.verification.subprocesses import python
from exporter.verification.verify import Outcome, verify
from runtime import Manifest, load
from runtime.artifact import artifact_file
from runtime.errors import CheckFailedError, InputValueError, VerificationError
from runtime.format.golden import Case
from runtime.format.manifest import ValueRange
from runtime.host.requirements import check_cpu, detect
from runtime.verification.compare import Comparison, run_cases

Folder = Callable[..., Path]


@pytest.mark.trap("a linear sharing an embedding's weight, packed for one shape", "mends")
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
        inputs = make_inputs(plan, {"batch": batch, "sequence": length}).as_dict()
        with torch.no_grad():
            expected = source.model(**inputs).logits
        error = (session(**inputs)["logits"] - expected).abs().max() / expected.abs().max()
        assert error <= tolerance, (batch, length)


class Wrong(torch.nn.Module):
    """A model with a fault of choice behind the same signature."""

    def __init__(self, adapter: torch.nn.Module, fault: str) -> None:
        super().__init__()
        self.adapter, self.fault = adapter, fault

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        answers = self.adapter(input_ids, attention_mask, token_type_ids)
        if self.fault == "writes":
            input_ids.add_(0 * attention_mask).clamp_(max=100)
        if self.fault == "mask":
            answers = self.adapter(input_ids, torch.ones_like(attention_mask), token_type_ids)
        return answers


def gate_on(
    folder: Path,
    tmp_path: Path,
    manifest: Manifest,
    fault: str,
    change: Callable[[VerificationCase], VerificationCase] = lambda point: point,
) -> tuple[TracePlan, list[VerificationCase], Outcome]:
    """The gate on a traced module with a fault, against the model's own answers."""
    request = ExportRequest(str(folder), "unused.pt")
    source = load_source(request)
    plan = make_plan(source, request)
    adapter = adapt(source, plan, make_inputs(plan, plan.example))
    plan, found = reference_cases(adapter, plan, adapter.outputs, "quick")
    points = [change(point) for point in found]
    with third_parties_quiet():
        example = make_inputs(plan, plan.example)
        traced = trace(Wrong(adapter, fault).eval(), example, "tuple", nullcontext())
    draft = tmp_path / "model.pt"
    artifact_file.save(traced.module, draft)
    return plan, points, verify(draft, manifest, points)


def zeroed(point: VerificationCase) -> VerificationCase:
    outputs = {name: tensor * 0 for name, tensor in point.golden.outputs.items()}
    return dataclasses.replace(point, golden=dataclasses.replace(point.golden, outputs=outputs))


@pytest.mark.trap("3, 5: right unpadded, wrong with padding", "refuses")
def test_a_model_that_ignores_the_mask(tiny_folder: Folder, exported: Callable[..., Any], tmp_path: Path) -> None:
    """Padding is excluded, and a session refuses it by name."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    manifest = exported(folder, backend="plain").manifest
    plan, points, outcome = gate_on(folder, tmp_path, manifest, "mask")
    assert set(outcome.failed) == {point.golden.name for point in points if point.padded}
    envelope = narrow(plan, [point.test_shape for point in points], outcome.failed)
    assert envelope is not None and envelope.excluded == "padding"
    assert envelope.plan.inputs[1].values == ValueRange(1, 1)


@pytest.mark.trap("3, 5: a decision of the traced length kept", "refuses")
def test_a_model_that_decides_by_length(tiny_folder: Folder, exported: Callable[..., Any], tmp_path: Path) -> None:
    """The reference branches on the length; the trace, made at 128, cannot."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    manifest = exported(folder, backend="plain").manifest
    plan, points, outcome = gate_on(
        folder, tmp_path, manifest, "none", lambda point: zeroed(point) if point.shape["sequence"] < 20 else point
    )
    assert {name.partition("-")[2] for name in outcome.failed} == {"1x8", "2x1", "3x13-padded"}
    envelope = narrow(plan, [point.test_shape for point in points], outcome.failed)
    assert envelope is not None and envelope.excluded == "sequences shorter than 37"
    ranges = {axis.name: (axis.minimum, axis.maximum) for axis in envelope.plan.inputs[0].axes}
    assert ranges == {"batch": (1, None), "sequence": (37, 512)}


@pytest.mark.trap("2: the caller's tensor is written to", "refuses")
def test_a_model_that_writes_to_its_inputs(tiny_folder: Folder, exported: Callable[..., Any], tmp_path: Path) -> None:
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    manifest = exported(folder, backend="plain").manifest
    with pytest.raises(VerificationError, match="wrote to its caller's input 'input_ids'"):
        gate_on(folder, tmp_path, manifest, "writes")


class Accumulating(torch.nn.Module):
    """Traps 1 and 2: a linear whose sum goes to its own input, and one whose sum goes to the caller's tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor, r: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.first(x) + r
        return {"y": self.second(hidden) + hidden}


def accumulate(precision: Any) -> list[Comparison]:
    """The poisoned model through adapter, IPEX and trace; the worst of four rounds at three shapes."""
    backend = IpexBackend()
    here = detect()
    check_cpu(backend.requirements(precision, here).cpu_flags, precision, here)
    model = Accumulating().eval()
    kind = type("Two", (Adapter,), {"forward": with_signature(Adapter.forward, ("x", "r"))})
    cases = []
    for number, (batch, length) in enumerate([(1, 3), (2, 8), (3, 5)]):
        inputs = {name: torch.randn(batch, length, 64) for name in ("x", "r")}
        with torch.no_grad():
            cases.append(Case(str(number), inputs, {"y": model(**inputs)["y"].clone()}))
    with third_parties_quiet():
        optimised = backend.optimise(kind(model, ("x", "r"), {"y": ("y",)}).eval(), precision)
        module = trace(optimised, ExampleInputs(cases[1].inputs), "dict", backend.autocast(precision)).module

    def session(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {"y": module(inputs["x"], inputs["r"])[0]}

    answer: Any = session
    return run_cases(answer, cases, rounds=4)


@pytest.mark.trap("1, 2: sums accumulated into h while read, or into the caller's r", "mends")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sums_that_ipex_accumulates_in_place(precision: Any) -> None:
    """The adapter hands IPEX tensors of its own, and its default kernels are right."""
    for comparison in accumulate(precision):
        assert comparison.within(TOLERANCES[precision, "scores"]), comparison


@pytest.mark.trap("1: the same with IPEX's other kernels, as the gate sees it", "refuses")
def test_the_first_trap_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """With auto_kernel_selection the sum is wrong from the second call on: the comparison must see it."""
    import intel_extension_for_pytorch as ipex

    optimize = ipex.optimize
    monkeypatch.setattr(
        ipex, "optimize", lambda module, **options: optimize(module, **(options | {"auto_kernel_selection": True}))
    )
    assert not any(comparison.within(TOLERANCES["fp32", "scores"]) for comparison in accumulate("fp32"))


@pytest.mark.trap("2: the same without the adapter's copies, as the gate sees it", "refuses")
def test_the_second_trap_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handed the caller's tensors, IPEX writes to them in bf16: the comparison must see it."""
    monkeypatch.setattr(exporter.tracing.adapter, "cloned_floats", lambda inputs: inputs)
    with pytest.raises(CheckFailedError, match="wrote to its caller's input 'r'"):
        accumulate("bf16")


def test_the_gate_lets_a_right_one_pass(tiny_folder: Folder, exported: Callable[..., Any]) -> None:
    report = exported(tiny_folder("bert", "text-classification", num_labels=3), backend="plain")
    assert {point.calls for point in report.manifest.verified} == {8}
    # A head with classes: argmax mismatches are recorded too.
    assert {point.argmax_mismatches for point in report.manifest.verified} == {0}
    assert all(point.rows == point.shape["batch"] for point in report.manifest.verified)


@pytest.mark.trap("7: a process that dies at a later call", "refuses")
def test_a_file_on_which_a_process_dies(tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the fresh process is a finding, not a crash of the exporter."""
    from exporter.verification import verify as module

    monkeypatch.setattr(module, "worker", lambda _name: python("import os; os.kill(os.getpid(), 11)"))
    with pytest.raises(VerificationError, match="with signal 11"):
        export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trap("a backend that is wrong everywhere", "mends")
def test_auto_goes_on_to_the_next_candidate(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """IPEX wrong at every shape (its outputs doubled on the way): auto ships onednn and says so, ipex refuses."""
    optimise = IpexBackend.optimise

    def doubled(_self: IpexBackend, module: torch.nn.Module, precision: Any) -> torch.nn.Module:
        class Doubled(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = optimise(IpexBackend(), module, precision)

            def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
                return tuple(2 * answer for answer in self.inner(input_ids, attention_mask, token_type_ids))

        return Doubled().eval()

    monkeypatch.setattr(IpexBackend, "optimise", doubled)
    output = tmp_path / "m.pt"
    report = export(ExportRequest(str(tiny_folder()), output, tune="off"))
    assert report.manifest.backend == "onednn"
    assert "ipex with eager attention failed: the written file is wrong at 7 of the shapes tried" in caplog.text
    assert any(choice.startswith("chosen: onednn with eager") for choice in report.choices)
    with pytest.raises(VerificationError, match="wrong at 7 of the shapes"):
        export(ExportRequest(str(tiny_folder()), output, backend="ipex", force=True))
    assert load(output).manifest.backend == "onednn"


@pytest.mark.trap("5: right at the sizes that were tried, wrong between them", "refuses")
def test_a_narrowed_range_is_tried_at_further_sizes(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right at multiples of 64, of which two were tried: what is left is the one size of the example."""
    from exporter.backends.plain import PlainBackend

    class Stepped(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            length = torch.ones_like(input_ids).sum(1).max()
            return tuple(a + length % 64 for a in self.inner(input_ids, attention_mask, token_type_ids))

    monkeypatch.setattr(PlainBackend, "optimise", lambda _self, module, _precision: Stepped(module).eval())
    report = export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain"))
    (lengths,) = {axis for spec in report.manifest.inputs for axis in spec.axes if axis.name == "sequence"}
    assert (lengths.minimum, lengths.maximum) == (128, 128)
    assert {point.shape["batch"] for point in report.manifest.verified} >= {2, 3, 4, 7}


@pytest.mark.trap("5: wrong for padding, the whole way to the session", "refuses")
def test_a_narrowed_artifact_is_verified_again_and_refuses_the_rest(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain backend made wrong for padding, the whole way to the session."""
    from exporter.backends.plain import PlainBackend

    class Unmasked(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.inner(input_ids, torch.ones_like(attention_mask), token_type_ids)

    monkeypatch.setattr(PlainBackend, "optimise", lambda _self, module, _precision: Unmasked(module).eval())
    report = export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain"))
    assert "excluded, because it was wrong there: padding" in report.choices
    assert not any(point.padded for point in report.manifest.verified)
    session = load(tmp_path / "m.pt")
    ids = torch.tensor([[5, 6, 7]])
    session(input_ids=ids)
    with pytest.raises(InputValueError, match="'attention_mask' holds 0"):
        session(input_ids=ids, attention_mask=torch.tensor([[1, 1, 0]]))


def test_off_is_written_into_the_file(tiny_folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain", verify="off"))
    assert (report.manifest.verification, report.manifest.verified) == ("off", ())
    assert "NOT verified" in caplog.text


def test_full_tries_more_shapes_and_another_thread_count(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = tiny_folder("bert", "text-classification", max_position_embeddings=64)
    report = export(ExportRequest(str(folder), tmp_path / "m.pt", precision="bf16", backend="ipex", verify="full"))
    shapes = {(point.shape["batch"], point.shape["sequence"]) for point in report.manifest.verified}
    assert {batch for batch, _ in shapes} >= {1, 2, 5} and {length for _, length in shapes} >= {1, 8, 37, 64}
    detail = next(stage.detail for stage in report.stages if stage.name == "verify")
    assert "(1 threads)" in detail and "largest-first" in detail and "two-threads" in detail
