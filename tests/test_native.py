"""The backend of this project's own operators: the model's answers, and a named error where the library is absent."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import runtime
from exporter import ExportRequest, Report, export
from exporter.verification import verify
from exporter.verification.subprocesses import script
from runtime.errors import NativeLibraryError, VerificationError
from runtime.host import native_library, torchscript
from runtime.host.native_library import VARIABLE, register_native
from runtime.session import open_module
from tests.conftest import BIN, ROOT, run, run_python, tiny_model
from tests.test_padding import LENGTHS, batch, expected

pytestmark = [pytest.mark.cpp, pytest.mark.usefixtures("native_operators")]


@pytest.fixture(scope="module")
def tagger(tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> Report:
    return exported(tiny_folder("bert", "token-classification", num_labels=5), backend="native")


@pytest.mark.parametrize("lengths", LENGTHS)
def test_tokens_get_the_models_answers(lengths: str, tagger: Report) -> None:
    session = runtime.load(tagger.output, warmup=False)
    model = tiny_model("bert", "token-classification", num_labels=5)
    inputs = batch(*LENGTHS[lengths])
    real = inputs["attention_mask"].bool()
    for _ in range(3):
        answer = session(**inputs)["logits"]
        torch.testing.assert_close(answer[real], expected(model, inputs)[real], rtol=1e-4, atol=1e-5)


def test_what_the_file_says(tagger: Report) -> None:
    manifest = runtime.read_manifest(tagger.output)
    assert manifest.backend == "native"
    assert manifest.requires.native == register_native()
    assert manifest.requires.torch_rule == "at-least-minor"
    # Each of the library's levels has these: nothing binds the file to the processor that it was made on.
    assert manifest.requires.cpu_flags == ("avx2", "fma")
    shown = run([BIN / "run-model", "inspect", tagger.output]).stdout
    needs = f"(or newer); this project's own operators, version {register_native()}; processor with avx2, fma\n"
    assert needs in shown
    assert any(line.startswith("needs this project's own operators, version") for line in tagger.summary())
    # Two layers of two norms, and that of the embeddings.
    assert [fusion.count for fusion in manifest.fusions if fusion.kind == "layer norm with addition"] == [5]


@pytest.mark.parametrize("lengths", ["ragged", "full"])
def test_what_a_call_runs(lengths: str, tagger: Report) -> None:
    """Each norm takes the addition before it, and a batch of texts of any lengths is one attention a layer."""
    session = runtime.load(tagger.output)
    inputs = batch(*LENGTHS[lengths])
    with torch.profiler.profile() as profile:
        session(**inputs)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["em_native::attention"] == 2
    assert counts["em_native::add_layer_norm"] == 5
    # Of three embeddings, and of two numbers where the graph computes a length.
    assert counts["aten::add"] <= 5


@pytest.mark.parametrize(
    ("backend", "timed"), [("auto", {"onednn", "native", "plain"}), ("stock", {"onednn", "plain"})]
)
def test_what_auto_and_stock_time(
    backend: Any, timed: set[str], tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    report = export(ExportRequest(str(tiny_folder()), tmp_path / "a.pt", backend=backend, tune_shapes=((2, 16),)))
    found = {timing.candidate.split()[0] for timing in report.manifest.timings}
    assert found - {"ipex"} == timed and ("ipex" not in found or backend == "auto")
    needs = [line for line in report.summary() if line.startswith("needs this project's own operators")]
    assert len(needs) == (report.manifest.backend == "native")


@pytest.mark.slow
def test_every_level_is_verified(
    tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those below the highest in processes of their own: the file may run on a processor that has no more."""
    lowest = native_library.native_levels()[0]
    monkeypatch.setattr(verify, "native_levels", lambda: [lowest, "the highest"])
    report = export(ExportRequest(str(tiny_folder()), tmp_path / "a.pt", backend="native"))
    (verified,) = [stage.detail for stage in report.stages if stage.name == "verify"]
    assert f"two-threads, batch-1-first ({lowest} alone)" in verified
    monkeypatch.setattr(verify, "native_levels", lambda: ["avx9", "the highest"])
    with pytest.raises(VerificationError, match="names no level of the native operators"):
        export(ExportRequest(str(tiny_folder()), tmp_path / "b.pt", backend="native"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_gated_layer_is_one_operator(
    precision: str, tiny_folder: Callable[..., Path], exported: Callable[..., Report]
) -> None:
    """ModernBERT has both halves from one linear; in int8 what lies between its linears is bf16."""
    kind = "modernbert", "token-classification"
    config: dict[str, Any] = {
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    report = exported(tiny_folder(*kind, **config), backend="native", precision=precision)
    assert [fusion.count for fusion in report.manifest.fusions if fusion.kind == "gated form"] == [2]
    inputs = batch(*LENGTHS["ragged"])
    real = inputs["attention_mask"].bool()
    wanted = expected(tiny_model(kind[0], kind[1], **config), inputs)[real]
    found = runtime.load(report.output)(**inputs)["logits"][real]
    assert float((found - wanted).abs().max() / wanted.abs().max()) < (1e-4 if precision == "fp32" else 0.05)


@pytest.mark.parametrize("model_type", ["distilbert", "mpnet", "electra"])
def test_other_models(model_type: str, tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> None:
    """With MPNet's bias of relative positions, the mask does more than hide padding."""
    session = runtime.load(exported(tiny_folder(model_type, num_labels=3), backend="native").output)
    inputs = batch(*LENGTHS["ragged"])
    wanted = expected(tiny_model(model_type, "text-classification", num_labels=3), inputs)
    torch.testing.assert_close(session(**inputs)["logits"], wanted, rtol=1e-4, atol=1e-5)


def test_heads_wider_than_the_operator_takes(tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> None:
    """Gemma 4 has heads of 512 numbers. All else stays the project's own."""
    sizes = {"hidden_size": 640, "num_attention_heads": 2, "num_hidden_layers": 1, "num_labels": 3}
    report = exported(tiny_folder("bert", **sizes), backend="native")
    assert {"linear", "layer norm with addition"} <= {one.kind for one in report.manifest.fusions}
    inputs = batch(*LENGTHS["ragged"])
    wanted = expected(tiny_model("bert", "text-classification", **sizes), inputs)
    torch.testing.assert_close(runtime.load(report.output)(**inputs)["logits"], wanted, rtol=1e-4, atol=1e-5)


def test_bf16(minilm: Path, exported: Callable[..., Report]) -> None:
    texts = ["How do I reset my password?", "I forgot the password of my account.", "The ferry leaves at seven. " * 9]
    one, other = (
        torch.stack(runtime.load(exported(minilm, precision=precision, backend=backend).output).text.embed(texts))
        for precision, backend in (("bf16", "native"), ("fp32", "plain"))
    )
    assert torch.nn.functional.cosine_similarity(one, other).min() > 0.999


@pytest.mark.parametrize("lengths", LENGTHS)
def test_int8_needs_no_calibration(
    lengths: str, tiny_folder: Callable[..., Path], exported: Callable[..., Report]
) -> None:
    report = exported(tiny_folder("bert", "token-classification", num_labels=5), backend="native", precision="int8")
    # Two layers of query-key-value, attention's output and two of the feed-forward part; the small head stays in fp32.
    assert {f.kind: f.count for f in report.manifest.fusions if "linear" in f.kind} == {
        "linear": 1,
        "linear in int8": 6,
        "linear in int8+gelu": 2,
    }
    model = tiny_model("bert", "token-classification", num_labels=5)
    inputs = batch(*LENGTHS[lengths])
    real = inputs["attention_mask"].bool()
    wanted = expected(model, inputs)[real]
    answer = runtime.load(report.output, warmup=False)(**inputs)["logits"][real]
    error = (answer - wanted).abs().max() / wanted.abs().max()
    # Not exact, or nothing was computed in int8.
    assert 1e-4 < error < 0.1
    # In bf16: queries, keys and values together, and what goes into the second linear of the feed-forward part. The
    # other two of a layer are added to what goes on.
    calls = [node for node in torchscript.load(os.fspath(report.output)).graph.nodes() if node.hasAttribute("name")]
    linears = [list(node.inputs()) for node in calls if node.s("name") == "em_native_linear_int8"]
    assert [bool(inputs[-1].toIValue()) for inputs in linears] == 2 * [True, False, True, False]


def test_int8_is_near_fp32_on_text(minilm: Path, exported: Callable[..., Report], tmp_path: Path) -> None:
    """The samples serve for measuring alone."""
    lines = tmp_path / "lines.txt"
    lines.write_text(run([*script(ROOT / "examples/calibration/lines.py"), 100]).stdout)
    report = exported(minilm, precision="int8", backend="native", calibration=lines)
    (accuracy,) = report.manifest.accuracy
    assert accuracy.mean_cosine >= 0.995
    assert accuracy.least_cosine >= 0.98
    assert any("not fitted to the samples" in line for line in report.choices)
    # Weights of 8 bits, and embeddings of 32: 12 million numbers.
    assert Path(report.output).stat().st_size < 62e6


def test_linears_without_prepare(tagger: Report) -> None:
    """A program of its own that does not call it gets the same numbers, but for the order in which they are added."""
    module = torchscript.load(os.fspath(tagger.output))
    inputs = batch(*LENGTHS["ragged"])
    tensors = [inputs.get(spec.name, torch.zeros_like(inputs["input_ids"])) for spec in tagger.manifest.inputs]
    (before,) = module(*tensors)
    module.prepare()
    (after,) = module(*tensors)
    # Packed for oneDNN, where that is faster, a linear adds in another order.
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)


def test_without_the_library(
    tagger: Report, tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.so"))
    expected_words = r"absent\.so does not exist; expected the library of this project's own operators; build it with"
    with pytest.raises(NativeLibraryError, match=expected_words):
        export(ExportRequest(str(tiny_folder()), tmp_path / "a.pt", backend="native"))
    assert not (tmp_path / "a.pt").exists()
    with pytest.raises(NativeLibraryError, match=expected_words):
        runtime.load(tagger.output)
    (tmp_path / "absent.so").write_text("no library")
    # In a process that has not loaded the operators.
    done = run([BIN / "run-model", "check", tagger.output], **{VARIABLE: str(tmp_path / "absent.so")})
    assert done.returncode == 1
    assert re.search(r"cannot use .*absent\.so: .*; expected a library built for torch", done.stderr)


def test_a_second_library_is_refused(tmp_path: Path, native_operators: Path) -> None:
    """To register operators twice would end the process."""
    other = Path(shutil.copy(native_operators, tmp_path))
    code = """
import os, sys
from runtime.errors import NativeLibraryError
from runtime.host.native_library import VARIABLE, register_native
print(register_native())
os.environ[VARIABLE] = sys.argv[1]
try:
    register_native()
except NativeLibraryError as error:
    print(error)
"""
    done = run_python(code, other)
    assert done.stdout.splitlines() == [
        str(register_native()),
        f"this process has the operators of another library than {other}; expected one library, the same whenever "
        f"{VARIABLE} is read",
    ]


def test_another_version_of_the_operators(tagger: Report) -> None:
    manifest = runtime.read_manifest(tagger.output)
    wanted: Any = dataclasses.replace(manifest, requires=dataclasses.replace(manifest.requires, native=99))
    told = r"has version \d+ of the operators; expected version 99; build it with"
    with pytest.raises(NativeLibraryError, match=told):
        open_module(tagger.output, wanted)


def test_where_the_library_is_looked_for() -> None:
    minor = ".".join(torch.__version__.split(".")[:2])
    assert native_library.native_library() == ROOT / f"runtime/kernels/lib/libexported_model_native-torch{minor}.so"


_PEAK = """
import sys, torch
import runtime

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

session = runtime.load(sys.argv[1])
print((kilobytes("VmHWM") - kilobytes("VmRSS")) // 1024)
"""


def test_packing_weights_takes_little_memory_beside_them(tmp_path: Path) -> None:
    """85 MB of weights: each one's copy goes back to the system before the next is packed."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=768, num_hidden_layers=3, num_attention_heads=12, intermediate_size=3072
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "model")
    export(ExportRequest(str(tmp_path / "model"), tmp_path / "m.pt", backend="native", tune="off", verify="off"))
    done = run_python(_PEAK, tmp_path / "m.pt")
    assert done.returncode == 0, done.stderr
    # A packed weight of 9 MB beside the one it replaces, and what warming up needs.
    assert int(done.stdout) < 30
