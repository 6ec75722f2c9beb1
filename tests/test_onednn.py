"""The backend of PyTorch's own oneDNN operators: what it places in the graph, what `prepare` does, the same answers."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import ExportRequest, export
from exporter.backends.candidates import ONEDNN_SINCE
from exporter.backends.onednn import attend
from exporter.backends.onednn.attention import simplify_attention
from exporter.backends.onednn.backend import OnednnBackend
from exporter.backends.onednn.join import join_linears
from exporter.backends.plain import BF16_FLAGS
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import shapes
from exporter.verification.subprocesses import python
from runtime import load, read_manifest
from runtime.artifact import artifact_file
from runtime.errors import BackendError
from runtime.host import torchscript
from runtime.host.requirements import check_cpu, detect, minor
from tests.conftest import BIN, ROOT, run, run_python

if minor(torch.__version__) < ONEDNN_SINCE:
    pytest.skip("operators of a newer torch", allow_module_level=True)


def frozen(module: torch.nn.Module, *inputs: torch.Tensor) -> tuple[Any, ExampleInputs]:
    example = ExampleInputs({f"x{number}": tensor for number, tensor in enumerate(inputs)})
    with torch.no_grad():
        return torchscript.freeze(torchscript.trace(module.eval(), example.as_tuple())), example


def kinds(graph: Any) -> list[str]:
    return [node.kind() for node in graph.nodes()]


@pytest.fixture(scope="module")
def classifier(tiny_folder: Callable[..., Path], exported: Callable[..., Any]) -> Any:
    return exported(tiny_folder("bert", "text-classification", num_labels=3), backend="onednn")


def test_what_is_fused_in_a_classifier(classifier: Any) -> None:
    """Two layers: query, key and value joined; the second one's output for the first token alone."""
    found = {fusion.kind: fusion.count for fusion in classifier.manifest.fusions}
    # Joined linears and the classifier; attention output and feed-forward output; feed-forward; pooler.
    assert found == {"prepacked linear": 3, "linear+add": 4, "linear+gelu": 2, "linear+tanh": 1}
    assert "rewritten: 3 linears compute the one token that the head reads" in classifier.choices
    assert any("2 attentions simplified" in choice for choice in classifier.choices)
    assert (classifier.manifest.requires.ipex, classifier.manifest.requires.torch_rule) == (None, "at-least-minor")


def test_prepare_changes_the_weights_and_no_answer(classifier: Any) -> None:
    """A host that does not know of it gets the same answers; calling it twice is calling it once."""
    session, module = load(classifier.output), artifact_file.load(classifier.output)
    inputs = {"input_ids": torch.randint(5, 290, (3, 11)), "attention_mask": torch.ones(3, 11, dtype=torch.int64)}
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    expected = session(**inputs)["logits"]
    assert not any(weight.is_mkldnn for weight in module.weights)
    plain = module(**inputs)[0]
    for _ in range(2):
        module.prepare()
        assert all(weight.is_mkldnn for weight in module.weights)
        # To rounding: TorchScript's first calls and its optimised ones may add in another order.
        torch.testing.assert_close(module(**inputs)[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.fresh
def test_a_stock_host_loads_it(classifier: Any) -> None:
    """Nothing but torch: no package of this project, no library of operators."""
    code = """
import sys, torch
module = torch.jit.load(sys.argv[1])
module.prepare()
ids = torch.arange(20).reshape(2, 10)
print(*module(ids, torch.ones_like(ids), torch.zeros_like(ids))[0].shape, "runtime" in sys.modules)
"""
    done = run([*python(code), classifier.output])
    assert done.stdout.split() == ["2", "3", "False"], done.stderr


@pytest.mark.trap("attention for onednn in a process that has IPEX's library", "mends")
def test_attention_beside_the_library_of_ipex() -> None:
    """It rewrites every TorchScript graph of the process, and drops an addition whose answer nothing reads."""
    code = """
import torch
from exporter.backends.onednn.attend import explicit_attention
from runtime.host import ipex_library
ipex_library.register_ipex()
form = torch.jit.script(explicit_attention)
query, values, keys = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 5, 16), torch.randn(2, 3, 16, 5)
mask = torch.randn(2, 1, 1, 5) * 3
with torch.no_grad():
    expected = torch.softmax(query @ keys * 0.25 + mask, -1) @ values
    print(all(torch.allclose(form(query, keys, values, mask, 0.25), expected, atol=1e-5) for _ in range(3)))
"""
    done = run_python(code)
    assert done.stdout.split() == ["True"], done.stdout + done.stderr


def test_one_copy_of_the_weights(classifier: Any, tiny_folder: Callable[..., Path]) -> None:
    """In the file: joined weights stand there once, and not beside the separate ones."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    weights = (folder / "model.safetensors").stat().st_size
    module = artifact_file.load(classifier.output)
    assert sum(weight.numel() for weight in module.weights) * 4 < weights
    records = read_manifest(classifier.output).parts
    assert sum(part.size for part in records if part.name.startswith(("data/", "constants/"))) < 1.05 * weights


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_real_model(precision: Any, minilm: Path, exported: Callable[..., Any]) -> None:
    report = exported(minilm, precision=precision, backend="onednn")
    found = {fusion.kind: fusion.count for fusion in report.manifest.fusions}
    assert found == {"prepacked linear": 6, "linear+add": 12, "linear+gelu": 6}
    done = run([BIN / "run-model", "check", report.output])
    assert done.returncode == 0 and done.stdout.endswith("passed\n"), done.stderr


def test_an_image_model(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=64, image_size=32, patch_size=8, num_labels=3)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    report = export(ExportRequest(str(tmp_path / "vit"), tmp_path / "m.pt", backend="onednn"))
    assert "rewritten: 3 linears compute the one token that the head reads" in report.choices


def test_a_model_without_linears_is_refused() -> None:
    module, example = frozen(torch.nn.Conv1d(3, 3, 3), torch.randn(2, 3, 9))
    with pytest.raises(BackendError, match="no linear for oneDNN"):
        OnednnBackend().rewrite(module, example, "fp32")


class Pair(torch.nn.Module):
    def __init__(self, read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], biases: tuple[bool, bool]) -> None:
        super().__init__()
        self.read = read
        self.one, self.two = torch.nn.Linear(8, 12, biases[0]), torch.nn.Linear(8, 4, biases[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read(self.one(x), self.two(x))


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, False)])
def test_linears_of_the_same_input_are_joined(biases: tuple[bool, bool]) -> None:
    def read(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        return one.view(one.shape[0], -1, 3, 4).sum(2) * two.view(two.shape[0], -1, 4)

    module = Pair(read, biases)
    traced, _ = frozen(module, torch.randn(2, 5, 8))
    assert join_linears(traced.graph) == 2
    for shape in ((2, 5, 8), (3, 1, 8)):
        x = torch.randn(*shape)
        with torch.no_grad():
            torch.testing.assert_close(traced(x), module(x))


def test_linears_whose_answers_are_read_otherwise_stay_apart() -> None:
    traced, _ = frozen(Pair(lambda one, two: one.sum() * two, (True, True)), torch.randn(2, 5, 8))
    assert join_linears(traced.graph) == 0


class Attention(torch.nn.Module):
    def __init__(self, scale: Callable[[torch.Tensor], torch.Tensor], wide: bool = False) -> None:
        super().__init__()
        self.scale, self.wide = scale, wide
        self.query, self.key = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> Any:
        query = self.query(x)
        scores = self.scale(
            torch.matmul(query.view(2, -1, 2, 4).transpose(1, 2), self.key(x).view(2, -1, 2, 4).permute(0, 2, 3, 1))
        )
        return (scores.softmax(-1), query) if self.wide else scores.softmax(-1)


@pytest.mark.parametrize(
    ("scale", "folded"),
    [
        (lambda scores: scores * 0.5, 1),
        (lambda scores: scores / 8, 1),
        (lambda scores: scores / 3, 0),
        (lambda scores: scores * -0.5, 0),
    ],
)
def test_a_scale_goes_into_the_query_where_that_is_exact(scale: Any, folded: int) -> None:
    module = Attention(scale)
    traced, _ = frozen(module, torch.randn(2, 5, 8))
    assert simplify_attention(traced.graph) == folded
    assert sum(kind in ("aten::mul", "aten::div") for kind in kinds(traced.graph)) == 1 - folded
    x = torch.randn(2, 7, 8)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), module(x), rtol=1e-6, atol=1e-7)


def test_a_query_that_something_else_reads_is_not_scaled() -> None:
    module = Attention(lambda scores: scores * 0.5, wide=True)
    traced, _ = frozen(module, torch.randn(2, 5, 8))
    assert simplify_attention(traced.graph) == 0
    x = torch.randn(2, 7, 8)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), module(x))


class Heads(torch.nn.Module):
    """Attention of two heads, written out as models do; `change` stands for what models do otherwise."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.change = change

    def forward(self, query: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = torch.matmul(query, keys.transpose(2, 3)) * 0.3
        scores = scores + mask if self.change is None else self.change(scores)
        return torch.matmul(scores.softmax(-1), keys)


def attention_inputs(rows: int, queries: int, keys: int, masks: int, dtype: torch.dtype) -> list[torch.Tensor]:
    query, key = (torch.randn(rows, 2, length, 8, dtype=dtype) for length in (queries, keys))
    mask = torch.zeros(masks, 1, queries, keys, dtype=dtype)
    # Each row hides other keys, one query of each row all of them.
    for row in range(masks):
        mask[row, :, :, : row + 1] = torch.finfo(dtype).min
        mask[row, :, row] = torch.finfo(dtype).min
    return [query, key, mask]


@pytest.mark.parametrize(
    "dtype, few, many",
    [(torch.float32, 0, 0), (torch.bfloat16, 10**9, 0), (torch.bfloat16, 0, 10**9), (torch.bfloat16, 0, 0)],
    ids=["fp32", "one call", "at once", "by row"],
)
def test_each_form_of_attention(dtype: torch.dtype, few: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace, every form, other sizes than the trace's, rows with masks of their own and rows that share one."""
    if dtype == torch.bfloat16:
        # Refused where files in bf16 are. Where another test has loaded IPEX's library, it computes these products, and
        # fails without AVX-512.
        check_cpu(BF16_FLAGS, "bf16", detect())
    monkeypatch.setattr(attend, "FEW", few)
    monkeypatch.setattr(attend, "MANY_BYTES", many)
    torch.manual_seed(0)
    traced, example = frozen(Heads(), *attention_inputs(2, 5, 7, 2, dtype))
    assert attend.place_attention(traced, shapes(traced, example)) == 1
    assert "aten::softmax" not in kinds(traced.graph), "outside the branches"
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for rows, queries, keys, masks in ((2, 5, 7, 2), (1, 3, 9, 1), (4, 6, 6, 1), (3, 8, 5, 3)):
        inputs = attention_inputs(rows, queries, keys, masks, dtype)
        before = copy.deepcopy(inputs)
        expected = Heads()(*(tensor.double() for tensor in inputs)).to(dtype)
        for _ in range(3):
            with torch.no_grad():
                torch.testing.assert_close(traced(*inputs), expected, rtol=tolerance, atol=tolerance)
        for tensor, was in zip(inputs, before, strict=True):
            torch.testing.assert_close(tensor, was, rtol=0, atol=0)


# Made before a trace, which warns of tensors that are made in it.
ONE_A_ROW = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        # No mask, and one for each row.
        (lambda scores: scores, 1),
        (lambda scores: scores + ONE_A_ROW, 1),
        (lambda scores: scores.clamp(max=1.0), 0),
        (lambda scores: scores + scores, 0),
        (lambda scores: scores.to(torch.float64).to(torch.float32), 0),
        (lambda scores: scores.to(torch.int64).to(torch.float32), 0),
    ],
)
def test_what_is_no_such_attention_stays(change: Callable[[torch.Tensor], torch.Tensor], count: int) -> None:
    torch.manual_seed(0)
    module = Heads(change)
    traced, example = frozen(module, *attention_inputs(2, 5, 7, 2, torch.float32))
    assert attend.place_attention(traced, shapes(traced, example)) == count
    inputs = attention_inputs(2, 4, 6, 2, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(traced(*inputs), module(*inputs), rtol=1e-5, atol=1e-6)


class Residual(torch.nn.Module):
    """Sums that may be fused, and sums that may not: of another shape, or of a linear that something else reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linears = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
        self.row = torch.nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linears[0](x) + x
        x = x + self.linears[1](x)
        x = self.linears[2](x) + self.row
        read_twice = self.linears[3](x)
        return read_twice + x * read_twice + torch.add(x, x, alpha=2)  # type: ignore[no-any-return]


def test_residual_additions() -> None:
    module = Residual()
    traced, example = frozen(module, torch.randn(2, 5, 8))
    words = OnednnBackend().rewrite(traced, example, "fp32")
    assert words.endswith("placed 2 linear, 2 linear+add")
    for _ in range(2):
        x = torch.randn(3, 1, 8)
        before = copy.deepcopy(x)
        with torch.no_grad():
            torch.testing.assert_close(traced(x), module(x))
        torch.testing.assert_close(x, before, rtol=0, atol=0)
        traced.prepare()


def test_the_code_of_prepare_is_on_the_allow_list(classifier: Any, tmp_path: Path) -> None:
    """`run-model inspect` and `check` read the file as any other; a plain copy of it loads too."""
    shutil.copy(classifier.output, tmp_path / "copy.pt")
    done = run_python("import runtime, sys; runtime.load(sys.argv[1])", tmp_path / "copy.pt")
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(run([BIN / "run-model", "inspect", "--json", tmp_path / "copy.pt"]).stdout)
    assert (shown["backend"], shown["timings"]) == ("onednn", [])
    assert str(ROOT) not in json.dumps(shown)
