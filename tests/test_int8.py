"""int8 through IPEX: right, measured on held-out samples, refused where it makes no sense."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter import ExportRequest, Report, export
from exporter.backends.candidates import list_candidates
from exporter.backends.ipex.backend import IpexBackend
from exporter.backends.ipex.int8 import _as_linears
from exporter.backends.onednn.quantise import quantise_linears
from exporter.calibration.dataset import read_calibration
from exporter.calibration.sampling import fit_calibration
from exporter.loading.loader import load_source
from exporter.loading.third_party_logs import third_parties_quiet
from exporter.packaging.report import StageEvent
from exporter.shapes.example_inputs import ExampleInputs
from exporter.shapes.trace_plan import make_plan
from exporter.verification.subprocesses import script
from runtime import load, read_manifest
from runtime.errors import BackendError, CpuFeatureError, RequestError
from runtime.format.codec import from_json, to_json
from runtime.host import requirements, torchscript
from runtime.host.requirements import Environment
from tests.conftest import BIN, ROOT, run, run_python, skip_without_instructions

EXPORT = BIN / "export-model"


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ids for the tiny models: 40 samples of 4 to 40 tokens, of which 8 are held out."""
    draw = random.Random(3)
    rows = [[draw.randrange(5, 300) for _ in range(draw.randrange(4, 41))] for _ in range(40)]
    path = tmp_path_factory.mktemp("calibration") / "samples.jsonl"
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def events() -> list[StageEvent]:
    """What the observer of `tiny_int8` saw."""
    return []


@pytest.fixture(scope="session")
def tiny_int8(
    tiny_folder: Callable[..., Path],
    samples: Path,
    tmp_path_factory: pytest.TempPathFactory,
    events: list[StageEvent],
) -> Report:
    """A tiny text classifier in int8."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    output = tmp_path_factory.mktemp("int8") / "model.pt"
    request = ExportRequest(str(folder), output, precision="int8", backend="ipex", calibration=samples)
    return export(request, events.append)


def test_the_file_answers_in_int8(tiny_int8: Report, tiny_folder: Callable[..., Path]) -> None:
    """In a process without transformers or IPEX's package, at a shape that the gate did not try."""
    manifest = tiny_int8.manifest
    assert (manifest.precision, manifest.backend) == ("int8", "ipex")
    assert "avx512_vnni" in manifest.requires.cpu_flags
    # Six linears a layer, pooler and head.
    assert {f.operator: f.count for f in manifest.fusions}["ipex::LlgaFusionGroup"] == 14
    # Attention's own products stay out of int8, where IPEX has fusions for them.
    assert {f.kind: f.count for f in manifest.fusions}["attention scores"] == 2
    ids = torch.randint(5, 300, (3, 23), generator=torch.Generator().manual_seed(9))
    source = load_source(ExportRequest(str(tiny_folder("bert", "text-classification", num_labels=3)), "unused.pt"))
    with torch.no_grad():
        expected = source.model(input_ids=ids).logits
    code = """
import sys
sys.modules.update(dict.fromkeys(["transformers", "click", "intel_extension_for_pytorch", "exporter"]))
import json, runtime, torch
session = runtime.load(sys.argv[1])
print(json.dumps(session(input_ids=torch.tensor(json.loads(sys.argv[2])))["logits"].tolist()))
"""
    done = run_python(code, tiny_int8.output, json.dumps(ids.tolist()))
    answer = torch.tensor(json.loads(done.stdout))
    error = (answer - expected).abs().max() / expected.abs().max()
    # Not exact, or nothing was computed in int8.
    assert 1e-4 < error <= manifest.tolerance.max_error, done.stderr


def test_the_weights_are_stored_in_8_bits(tiny_int8: Report) -> None:
    with zipfile.ZipFile(tiny_int8.output) as archive:
        pickles = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".pkl"))
    assert b"QInt8Storage" in pickles
    assert any("14 linears and convolutions in int8, with 57% of the parameters" in one for one in tiny_int8.choices)


def test_the_accuracy_is_that_of_the_file_on_held_out_samples(
    tiny_int8: Report, tiny_folder: Callable[..., Path], samples: Path
) -> None:
    """Asked anew: the same figures, as far as one process's rounding is another's."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    request = ExportRequest(str(folder), "unused.pt")
    source = load_source(request)
    plan = make_plan(source, request)
    held_out = fit_calibration(read_calibration(samples), plan, source.tokenizer).held_out
    session = load(tiny_int8.output)
    cosines, kept = [], 0
    for sample in held_out:
        with torch.no_grad():
            expected = source.model(**sample).logits
        answer = session(**sample)["logits"]
        cosines.append(float(torch.nn.functional.cosine_similarity(answer, expected)))
        kept += int((answer.argmax(-1) == expected.argmax(-1)).sum())
    (accuracy,) = read_manifest(tiny_int8.output).accuracy
    assert (accuracy.output, accuracy.samples, accuracy.rows) == ("logits", 8, 8)
    assert accuracy.mean_cosine == pytest.approx(sum(cosines) / 8, abs=2e-3)
    assert accuracy.least_cosine == pytest.approx(min(cosines), abs=5e-3)
    assert accuracy.argmax_matches is not None and abs(accuracy.argmax_matches - kept) <= 1
    assert 0 < accuracy.max_error < 0.3


def test_inspect_prints_the_accuracy(tiny_int8: Report) -> None:
    shown = run([BIN / "run-model", "inspect", tiny_int8.output]).stdout
    words = r"^accuracy  logits: cosine [01]\.\d{4} in the mean.*argmax matches in \d of 8 rows.*8 held-out"
    assert re.search(words, shown, re.M)
    described = json.loads(run([BIN / "run-model", "inspect", tiny_int8.output, "--json"]).stdout)
    assert described["accuracy"][0]["samples"] == 8
    assert run([BIN / "run-model", "check", tiny_int8.output]).returncode == 0


def test_older_files_have_no_accuracy(tiny_int8: Report) -> None:
    fields = json.loads(to_json(tiny_int8.manifest))
    del fields["accuracy"]
    assert from_json(json.dumps(fields), "old.pt").accuracy == ()


@pytest.mark.usefixtures("tiny_int8")
def test_calibrating_is_watched(events: list[StageEvent]) -> None:
    told = [event.detail for event in events if event.name == "backend" and event.seconds is None]
    # 32 samples of the file and 7 at the lengths that no sample has: 1, 2, 4, 80, 160, 320, 512.
    assert told[0] == "" and told[1] == "calibrating, 1 of 39 samples" and told[-1] == "calibrating, 39 of 39 samples"


def test_a_terminal_shows_how_far_it_is(tiny_folder: Callable[..., Path], samples: Path, tmp_path: Path) -> None:
    """And the line is gone when the stage ends."""
    ours, theirs = pty.openpty()
    options = ["--int8", "--backend", "ipex", "--calibration", samples, "--verify", "off"]
    command = [EXPORT, tiny_folder(), *options, "-o", tmp_path / "m.pt"]
    # clean start: the project's own command
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    told, _ = process.communicate(timeout=300)
    skip_without_instructions(shown.decode())
    assert process.returncode == 0, shown
    lines = told.decode().splitlines()
    assert "\rbackend      … calibrating, 20 of 39 samples\x1b[K" in shown.decode()
    # Untried, its accuracy is unknown.
    assert not [line for line in lines if line.startswith("accuracy")]
    assert read_manifest(tmp_path / "m.pt").accuracy == ()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end was closed
        return b""


def test_a_real_model_keeps_its_embeddings(minilm: Path, tmp_path: Path) -> None:
    """Trained weights and English: what int8 is asked for."""
    lines = tmp_path / "lines.txt"
    lines.write_text(run([*script(ROOT / "examples/calibration/lines.py"), 100]).stdout)
    report = export(ExportRequest(str(minilm), tmp_path / "m.pt", precision="int8", backend="ipex", calibration=lines))
    (accuracy,) = report.manifest.accuracy
    assert (accuracy.samples, accuracy.argmax_matches) == (20, None)
    assert accuracy.mean_cosine >= 0.985 and accuracy.least_cosine >= 0.95
    # Positions that no line reaches: attention in int8 was off by 0.45 there.
    longest = [point for point in report.manifest.verified if point.shape["sequence"] == 512]
    assert longest and all(point.max_error < 0.25 for point in longest)


def test_layers_that_are_used_several_times(tiny_folder: Callable[..., Path], samples: Path, tmp_path: Path) -> None:
    """ALBERT's layers are one; IPEX's smoothing fails on such."""
    folder = tiny_folder("albert", "fill-mask", embedding_size=32)
    report = export(
        ExportRequest(str(folder), tmp_path / "m.pt", precision="int8", backend="ipex", calibration=samples)
    )
    assert any("not smoothed" in choice for choice in report.choices)
    assert report.manifest.accuracy[0].mean_cosine > 0.98


def test_all_layers_are_in_int8_though_padding_is_left_out(
    tiny_folder: Callable[..., Path], samples: Path, tmp_path: Path
) -> None:
    """The region without padding begins in front of the first layer's codes, not between these and their linear."""
    folder = tiny_folder("bert", "token-classification", num_labels=3)
    request = ExportRequest(
        str(folder), tmp_path / "m.pt", precision="int8", backend="onednn", calibration=samples, padding="drop"
    )
    found = {fusion.kind: fusion.count for fusion in export(request).manifest.fusions}
    # Two layers: query, key and value joined, attention's and feed-forward's output, feed-forward; the head.
    assert found == {"prepacked linear in int8": 3, "linear+add in int8": 4, "linear+gelu in int8": 2}


def test_activations_give_codes_right_away(tiny_folder: Callable[..., Path], samples: Path) -> None:
    """What follows an activation is not smoothed, and so is never fp32 in between; everything else is."""
    folder = tiny_folder("bert", "token-classification", num_labels=3)
    source = load_source(ExportRequest(str(folder), "unused.pt"))
    plan = make_plan(source, ExportRequest(str(folder), "unused.pt"))
    fitted = fit_calibration(read_calibration(samples), plan, source.tokenizer).samples
    quantise_linears(source.model, fitted, lambda _: None)
    layer = source.model.bert.encoder.layer[0]
    assert layer.intermediate.dense.shrink is not None and layer.output.dense.shrink is None
    assert layer.attention.output.dense.shrink is not None
    assert torch.equal(layer.attention.self.query.shrink, layer.attention.self.key.shrink)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_no_linear_falls_back_to_a_reference_implementation(
    precision: str, tiny_folder: Callable[..., Path], samples: Path, tmp_path: Path
) -> None:
    """oneDNN has one for every case that no kernel of its own takes: a thousand times slower, and nothing is said."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    calibration = str(samples) if precision == "int8" else None
    request = ExportRequest(
        str(folder),
        tmp_path / "m.pt",
        precision=precision,  # type: ignore[arg-type]
        backend="onednn",
        calibration=calibration,
        tune="off",
        # Which kernels run, not how exact int8 is with random weights, which the gate may well refuse.
        verify="off",
    )
    export(request)
    code = """
import runtime, sys, torch
session = runtime.load(sys.argv[1])
ids = torch.randint(5, 300, (8, 32), generator=torch.Generator().manual_seed(0))
mask = (torch.arange(32) < torch.tensor([[int(n)] for n in sys.argv[2:]])).long()
session(input_ids=ids * mask, attention_mask=mask)
"""
    for lengths in (["32"] * 8, ["32", "3", "5", "9", "2", "4", "7", "1"]):
        said = run_python(code, tmp_path / "m.pt", *lengths, DNNL_VERBOSE="1", ONEDNN_VERBOSE="1").stdout
        products = [
            line.split(",") for line in said.splitlines() if ",exec,cpu,matmul," in line or ",inner_product," in line
        ]
        assert products, said
        assert not [fields for fields in products if any(field.startswith(("ref", "gemm:ref")) for field in fields)]


def test_linears_by_another_name() -> None:
    """GPT-2 has its own kind, with the weight transposed."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(2)
    config = AutoConfig.for_model("gpt2", n_embd=64, n_layer=1, n_head=4, vocab_size=300)
    model = AutoModel.from_config(config).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(ids).last_hidden_state
        _as_linears(model)
        after = model(ids).last_hidden_state
    assert sum(isinstance(part, torch.nn.Linear) for part in model.modules()) == 4
    assert torch.allclose(before, after, atol=1e-5)


class Norm(torch.nn.Module):
    """Nothing that int8 computes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(x)
        return normed


class Wavering(torch.nn.Module):
    """Another operator where the first number is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.one(x) if x[0, 0] > 0 else self.two(self.one(x))
        return found


@pytest.mark.parametrize(
    ("module", "found"),
    [(Norm(), "nothing in this model can be computed in int8"), (Wavering(), "IPEX cannot calibrate this model")],
)
def test_what_ipex_cannot_calibrate(module: torch.nn.Module, found: str) -> None:
    ones = {"x": torch.ones(2, 8)}
    with third_parties_quiet(), pytest.raises(BackendError, match=found):
        IpexBackend().quantise(module.eval(), [ones, {"x": -ones["x"]}], ExampleInputs(ones), lambda _: None)


def test_a_model_is_told_of_a_trace_only_while_calibrating() -> None:
    with pytest.raises(ValueError, match="stop"), torchscript.as_if_tracing():
        assert torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        raise ValueError("stop")
    assert not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]


def test_the_context_of_a_trace_holds_only_inside() -> None:
    """Calibrating under autocast gave answers off by 1.4; a second form of example inputs enters it anew."""
    context = IpexBackend().autocast("bf16")
    assert not torch.is_autocast_enabled("cpu")
    for _ in range(2):
        with context:
            assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--int8"], "precision is int8 and no calibration is given; expected samples .* give --calibration FILE"),
        (
            ["--calibration", "lines.txt"],
            "calibration is given and precision is fp32; expected calibration only with int8",
        ),
        (["--bf16", "--calibration", "lines.txt"], "calibration is given and precision is bf16"),
        (
            ["--int8", "--calibration", "lines.txt", "--backend", "plain"],
            "int8 is not available with --backend plain here; expected the ipex or the onednn backend",
        ),
    ],
)
def test_flags_that_do_not_fit(tmp_path: Path, options: list[str], found: str) -> None:
    done = run([EXPORT, "minilm", "--random-weights", *options, "-o", tmp_path / "m.pt"])
    assert done.returncode == 2
    assert re.search(found, done.stderr.strip().splitlines()[-1])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_fit_is_one_line(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Before any model is loaded where the file alone says it, else before any backend is asked."""
    for name, content, found in (
        ("few.jsonl", '{"input_ids": [5]}\n', r"few\.jsonl holds 1 samples; expected at least 10"),
        ("texts.txt", "a text\n" * 12, r"line 1 is a text, and the model has no tokenizer"),
    ):
        (tmp_path / name).write_text(content)
        command = [EXPORT, tiny_folder(), "--int8", "--calibration", tmp_path / name, "-o", tmp_path / "m.pt"]
        done = run(command)
        (line,) = done.stderr.strip().splitlines()
        assert done.returncode == 1 and re.search(found, line), done.stderr
        assert "backend" not in done.stdout and not (tmp_path / "m.pt").exists()


def test_int8_needs_its_instructions(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[..., Path], samples: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(requirements, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2 avx512bw avx512vl avx512dq\n")
    with pytest.raises(CpuFeatureError, match="lacks avx512_vnni"):
        export(
            ExportRequest(str(tiny_folder()), tmp_path / "m.pt", precision="int8", backend="ipex", calibration=samples)
        )


def test_candidates_without_int8_are_not_tried() -> None:
    ways = list_candidates("auto", Environment("2.8.0", "2.8.0", None), "full", "int8", "drop")
    assert ways and all("int8" in way.backend.precisions for way in ways)
    with pytest.raises(RequestError, match="int8 is not available with --backend plain here"):
        list_candidates("plain", Environment("2.13.0", None, None), "off", "int8", "drop")


def test_what_calibration_must_be() -> None:
    with pytest.raises(RequestError, match="calibration is 5"):
        ExportRequest("minilm", "m.pt", precision="int8", calibration=5)  # type: ignore[arg-type]
