"""Export, load in a process without transformers, compare with eager fp32: the same on every line of PyTorch.

`make test-lines` runs this file in three environments, with `LINE_FOLDER` set: artifacts then stay there, with a row
each for the table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from exporter import ExportRequest, Report, export
from exporter.backends.candidates import ONEDNN_SINCE
from runtime import load
from runtime.format.golden import Case, dump_cases
from runtime.host.requirements import detect, ipex_problem, minor
from runtime.verification.compare import run_cases
from tests.conftest import BIN, LACKS_BF16, run, run_python

TORCH = minor(torch.__version__)
FORM = "dict" if TORCH >= (2, 0) else "tuple"
IPEX_PROBLEM = ipex_problem(detect())
WITHOUT_IPEX = "plain" if TORCH < ONEDNN_SINCE else "onednn"
BACKEND = WITHOUT_IPEX if IPEX_PROBLEM else "ipex"

# Model type, task, precision, backend. The plain ones are those that the other lines load.
CASES = [
    ("bert", "text-classification", "fp32", "auto"),
    ("bert", "text-classification", "bf16", "auto"),
    ("distilbert", "question-answering", "fp32", "auto"),
    ("roberta", "token-classification", "fp32", "auto"),
    ("albert", "fill-mask", "bf16", "auto"),
    ("electra", "feature-extraction", "fp32", "auto"),
    ("minilm", "sentence-embedding", "fp32", "auto"),
    ("minilm", "sentence-embedding", "bf16", "auto"),
    ("bert", "text-classification", "fp32", "plain"),
    ("bert", "question-answering", "bf16", "plain"),
    pytest.param("minilm", "sentence-embedding", "fp32", "plain", marks=pytest.mark.slow),
]
if TORCH >= ONEDNN_SINCE:
    CASES += [
        ("bert", "text-classification", "fp32", "onednn"),
        ("bert", "text-classification", "bf16", "onednn"),
        pytest.param("minilm", "sentence-embedding", "fp32", "onednn", marks=pytest.mark.slow),
        pytest.param("minilm", "sentence-embedding", "bf16", "onednn", marks=pytest.mark.slow),
    ]

HEADS = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "token-classification": transformers.AutoModelForTokenClassification,
    "fill-mask": transformers.AutoModelForMaskedLM,
    "feature-extraction": transformers.AutoModel,
}

# Loads an artifact as a worker does, and calls it with the inputs named in the order opposite to the manifest's.
WORKER = """
import pathlib, sys
sys.modules.update(dict.fromkeys(["transformers", "click", "intel_extension_for_pytorch", "exporter"]))
import runtime
from runtime.verification.compare import run_cases
from runtime.format.golden import parse_cases
session = runtime.load(sys.argv[1])
cases = parse_cases(pathlib.Path(sys.argv[2]).read_bytes(), sys.argv[2])
backwards = [type(c)(c.name, dict(reversed(list(c.inputs.items()))), c.outputs) for c in cases]
found = run_cases(session, backwards)
assert found and all(comparison.within(session.manifest.tolerance) for comparison in found), found
print(max(comparison.max_error for comparison in found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the artifacts of this line stand."""
    kept = os.environ.get("LINE_FOLDER")
    return Path(kept) if kept else tmp_path_factory.mktemp("line")


@pytest.fixture(scope="module")
def rows(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """What the table shows of each export; written when all are done."""
    found: list[dict[str, Any]] = []
    yield found
    (folder / "rows.json").write_text(json.dumps(found, indent=1))


def answer_of(model: Path, task: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    """The original model, by its own package."""
    if task == "sentence-embedding":
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(model), device="cpu")
    loaded = HEADS[task].from_pretrained(model, attn_implementation="eager").eval()
    return lambda inputs: loaded(**inputs)


def cases_of(model: Path, report: Report) -> list[Case]:
    """Two calls that the exporter has not made, and the original model's answers, computed here.

    At padded places, where the original model computes what nobody reads, a file without work on padding repeats its
    row's last real token (`Manifest.padded_output`).
    """
    answer = answer_of(model, report.manifest.task)
    torch.manual_seed(3)
    cases = []
    for batch, length in ((3, 21), (1, 50)):
        drawn = {
            "input_ids": torch.randint(5, 290, (batch, length)),
            "attention_mask": torch.ones(batch, length).long(),
            "token_type_ids": torch.randint(0, 2, (batch, length)),
        }
        drawn["attention_mask"][-1, length - 4 :] = 0
        inputs = {spec.name: drawn[spec.name] for spec in report.manifest.inputs}
        with torch.no_grad():
            answers = answer(dict(inputs))
        outputs = {spec.name: answers[spec.name].contiguous().clone() for spec in report.manifest.outputs}
        for tensor in outputs.values() if report.manifest.padded_output == "repeated" else ():
            if tensor.shape[1] == length:
                tensor[-1, length - 4 :] = tensor[-1, length - 5]
        cases.append(Case(f"{batch}x{length}", inputs, outputs))
    return cases


@pytest.mark.parametrize(("model_type", "task", "precision", "backend"), CASES)
def test_round_trip(
    model_type: str,
    task: str,
    precision: Any,
    backend: Any,
    folder: Path,
    rows: list[dict[str, Any]],
    minilm: Path,
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    model = minilm if model_type == "minilm" else tiny_folder(model_type, task)
    output = folder / f"{model_type}-{task}-{precision}-{backend}.pt"
    request = ExportRequest(
        model=str(model), output=output, task=task, precision=precision, backend=backend, tune="off", force=True
    )
    report = export(request)

    assert report.example_inputs == FORM
    # Without AVX-512 the native operators alone have bf16.
    usual = "native" if precision == "bf16" and LACKS_BF16 else BACKEND
    assert report.manifest.backend == (usual if backend == "auto" else backend)
    (tmp_path / "cases").write_bytes(dump_cases(cases_of(model, report)))
    done = run_python(WORKER, output, tmp_path / "cases")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows.append(
        {
            "file": output.name,
            "model": model_type,
            "task": task,
            "precision": precision,
            "form": report.example_inputs,
            "backend": report.manifest.backend,
            "fusions": {fusion.kind: fusion.count for fusion in report.manifest.fusions},
            "max_error": float(done.stdout),
            "tolerance": report.manifest.tolerance.max_error,
        }
    )


@pytest.mark.parametrize("task", ["question-answering", "text-classification"])
def test_the_command(task: str, tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """As the README types it: nothing but the stages' lines, no warning of torch's, and a file that checks itself."""
    output = tmp_path / "model.pt"
    done = run([BIN / "export-model", tiny_folder("bert", task), "--task", task, "--tune", "off", "-o", output])
    assert done.returncode == 0, done.stderr
    assert f"{FORM} example inputs" in done.stdout
    assert done.stderr == ""
    if IPEX_PROBLEM:
        assert f"{BACKEND}: without IPEX: {IPEX_PROBLEM.found}" in done.stdout
    checked = run([BIN / "run-model", "check", output])
    assert checked.returncode == 0 and checked.stdout.endswith("passed\n"), checked.stderr
    assert checked.stderr == ""


REORDERED = """
from transformers import BertForSequenceClassification

class Reordered(BertForSequenceClassification):
    def forward(self, token_type_ids=None, attention_mask=None, input_ids=None, **options):
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **options
        )
"""


def test_a_batch_in_another_order(
    tiny_folder: Callable[..., Path], copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    """A model whose `forward` takes its inputs in no tokenizer's order: a tuple goes by the parameters."""
    folder = copy_of(tiny_folder("bert", "text-classification"))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["Reordered"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_reordered.Reordered"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_reordered.py").write_text(REORDERED)
    output = tmp_path / "model.pt"
    request = ExportRequest(
        model=str(folder), output=output, example_inputs="tuple", trust_remote_code=True, backend="plain"
    )
    report = export(request)
    assert report.example_inputs == "tuple"
    assert [spec.name for spec in report.manifest.inputs] == ["token_type_ids", "attention_mask", "input_ids"]
    cases = cases_of(tiny_folder("bert", "text-classification"), report)
    found = run_cases(load(output), cases)
    assert all(comparison.within(report.manifest.tolerance) for comparison in found)


@pytest.mark.slow
def test_ipex_of_another_minor_release_is_never_imported(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Importing it ends the process with 127; here a stand-in does the same, on whatever torch this is."""
    release = "2.7.0" if TORCH == (2, 8) else "2.8.0"
    name = "intel_extension_for_pytorch"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("import os; os._exit(127)")
    metadata = tmp_path / f"{name}-{release}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: intel-extension-for-pytorch\nVersion: {release}\n"
    )
    folder = tiny_folder("bert", "text-classification")
    command = [BIN / "export-model", folder, "--tune", "off", "-o", tmp_path / "m.pt"]

    refused = run([*command, "--backend", "ipex"], PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    wanted = release.rpartition(".")[0]
    assert f"intel-extension-for-pytorch {release} is installed beside torch {detect().torch}" in refused.stderr
    assert f"torch {wanted} beside it" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    chosen = run(command, PYTHONPATH=str(tmp_path))
    assert chosen.returncode == 0, chosen.stderr
    assert f"{WITHOUT_IPEX}: without IPEX: intel-extension-for-pytorch {release} is installed" in chosen.stdout


@pytest.mark.skipif(IPEX_PROBLEM is None, reason="IPEX fits this torch")
def test_ipex_that_cannot_be_is_named(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    done = run(
        [BIN / "export-model", tiny_folder("bert", "text-classification"), "--backend", "ipex", "-o", tmp_path / "m.pt"]
    )
    assert done.returncode == 1
    assert "version 2.8.0, its last release, beside torch 2.8" in done.stderr
    assert len(done.stderr.splitlines()) == 1
