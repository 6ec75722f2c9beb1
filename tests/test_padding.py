"""No work on padding: the same answers for real tokens at any mixture of lengths; one graph for full batches too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.backends.onednn import ragged
from exporter.backends.onednn.backend import OnednnBackend
from exporter.backends.onednn.layout import TOKENS, layout_of
from exporter.backends.onednn.padding import leave_out_padding
from exporter.shapes.example_inputs import ExampleInputs
from exporter.shapes.test_shapes import shapes_to_verify
from exporter.tracing.graphs.graph import shapes
from runtime import Session, load
from tests.conftest import BIN, run, tiny_model
from tests.test_onednn import frozen

SAID = "attentions, and all between them, on real tokens only"


def batch(lengths: Sequence[int], size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of these lengths, padded behind with zeros."""
    ids = torch.randint(5, 290, (len(lengths), size), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(size) < torch.tensor(lengths).unsqueeze(1)).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def expected(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model(**inputs).logits
    return answer


def packs(lengths: Sequence[int], size: int) -> bool:
    mask = batch(lengths, size)["attention_mask"]
    return bool(ragged.plan_padding(mask, ragged.FULL, ragged.LEAST, ragged.STEP)[2])


LENGTHS = {
    "full": ([64, 64], 64),
    "ragged": ([128, 20, 35, 50, 64, 12, 90, 40], 128),
    "short rows": ([32, 3, 1, 20, 7, 9], 32),
    "hardly padded": ([100, 100, 97], 100),
    "small": ([9, 4], 9),
    "one row": ([70], 200),
    "a row of nothing": ([100, 0, 30], 100),
    "many tokens": ([1] * 63 + [100], 100),
}


@pytest.fixture(scope="module")
def tagger(tiny_folder: Callable[..., Path], exported: Callable[..., Any]) -> Any:
    return exported(tiny_folder("bert", "token-classification", num_labels=5), backend="onednn")


@pytest.mark.parametrize("lengths", LENGTHS)
def test_tokens_get_the_models_answers(lengths: str, tagger: Any) -> None:
    """Through every way that the file has: as it is, padding given back around attention, row by row."""
    session = load(tagger.output, warmup=False)
    model = tiny_model("bert", "token-classification", num_labels=5)
    inputs = batch(*LENGTHS[lengths])
    for _ in range(3):
        answer = session(**inputs)["logits"]
        real = inputs["attention_mask"].bool()
        torch.testing.assert_close(answer[real], expected(model, inputs)[real], rtol=1e-4, atol=1e-5)
        assert answer.isfinite().all()
        for row, length in zip(answer, LENGTHS[lengths][0], strict=True):
            if length:
                # What stands at padding is never better than every real token.
                assert torch.equal(row[length:], row[length - 1].expand_as(row[length:]))


def test_every_way_is_verified_before_a_file_ships(tagger: Any) -> None:
    """The shapes of the gate: full, hardly any places, padding around attention, row by row."""
    ways = set()
    for point in tagger.manifest.verified:
        rows, size = point.shape["batch"], point.shape["sequence"]
        (trial,) = [
            trial for trial in shapes_to_verify(_dimensions(tagger), "sequence", "quick") if trial.name == point.case
        ]
        lengths = trial.lengths or [size] * rows
        ways.add((packs(lengths, size), size <= ragged.SHORT) if point.padded else "full")
    assert ways == {"full", (False, True), (True, True), (True, False)}
    assert any(SAID in choice for choice in tagger.choices)
    assert tagger.manifest.padded_output == "repeated"
    shown = run([BIN / "run-model", "inspect", tagger.output])
    assert "padding   not computed" in shown.stdout


def _dimensions(report: Any) -> Any:
    from exporter.shapes.test_shapes import Dimension

    axes = {axis.name: axis for spec in report.manifest.inputs for axis in spec.axes}
    return {"batch": Dimension(axes["batch"], 2), "sequence": Dimension(axes["sequence"], 128)}


def test_rows_that_are_not_padded_behind_go_through_as_they_are(tagger: Any) -> None:
    session = load(tagger.output)
    model = tiny_model("bert", "token-classification", num_labels=5)
    for change in ("in front", "a hole"):
        inputs = batch([80, 40], 80)
        mask = inputs["attention_mask"]
        mask[1] = mask[1].flip(0) if change == "in front" else mask[1]
        mask[0, 5] = 0 if change == "a hole" else 1
        torch.testing.assert_close(session(**inputs)["logits"], expected(model, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["roberta", "bart", "modernbert", "qwen3"])
def test_architectures(model_type: str, tmp_path: Path, exported: Callable[..., Any]) -> None:
    """Learned positions, encoder and decoder, rotary positions, local attention, shared keys: by structure alone."""
    from tests.model_matrix.tiny import tiny_model as any_tiny

    names = {"modernbert": "ModernBert", "roberta": "Roberta"}
    name = f"{names.get(model_type, model_type.title())}ForSequenceClassification"
    any_tiny(model_type, name).save_pretrained(tmp_path)
    report = exported(tmp_path, backend="onednn", task="text-classification")
    assert any(SAID in choice for choice in report.choices), report.choices


class Bounded(torch.nn.Module):
    """Tokens with a bound: one number, or one for each token of the batch."""

    def __init__(self, each: bool) -> None:
        super().__init__()
        self.each = each

    def forward(self, tokens: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
        return tokens.clamp(min=bounds) if self.each else tokens.clamp(min=0.5)


@pytest.mark.parametrize(("each", "layout"), [(True, None), (False, TOKENS)])
def test_a_bound_for_each_token_is_not_followed(each: bool, layout: Any) -> None:
    """It has all places of the batch, where the tokens beside it have only the real ones."""
    module, example = frozen(Bounded(each), torch.rand(2, 3, 4), torch.rand(2, 3, 1))
    (node,) = [node for node in module.graph.nodes() if node.kind() == "aten::clamp"]
    assert layout_of(node, {node.inputsAt(0).debugName(): TOKENS}, shapes(module, example)) == layout


def test_padding_kept(tiny_folder: Callable[..., Path], exported: Callable[..., Any]) -> None:
    """Asked for, or where the gate finds the other one wrong."""
    folder = tiny_folder("bert", "token-classification", num_labels=5)
    report = exported(folder, backend="onednn", padding="keep")
    assert not any(SAID in choice for choice in report.choices)
    assert report.manifest.padded_output == "computed"
    inputs = batch([80, 40], 80)
    model = tiny_model("bert", "token-classification", num_labels=5)
    answer = load(report.output)(**inputs)["logits"]
    torch.testing.assert_close(answer, expected(model, inputs), rtol=1e-4, atol=1e-5)


def test_the_gate_refuses_a_wrong_one_and_padding_is_kept(
    tiny_folder: Callable[..., Path], exported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention that leaves out the last token of each row, in packed batches alone."""

    def scatter_tokens(
        tensor: torch.Tensor, back: torch.Tensor, mask: torch.Tensor, rows: int, tokens: int
    ) -> torch.Tensor:
        if back.numel() == 0:
            return tensor
        return (  # type: ignore[no-any-return]
            tensor.movedim([rows, tokens], [0, 1])
            .flatten(0, 1)
            .index_select(0, back * 0)
            .unflatten(0, [mask.size(0), mask.size(1)])
            .movedim([0, 1], [rows, tokens])
        )

    monkeypatch.setattr(ragged, "scatter_tokens", scatter_tokens)
    report = exported(tiny_folder("bert", "token-classification", num_labels=6), backend="onednn")
    assert not any(SAID in choice for choice in report.choices)
    assert any("padding dropped failed" in choice for choice in report.choices)
    assert report.manifest.padded_output == "computed"
    assert any("chosen: onednn with eager attention (with padding)" in choice for choice in report.choices)


class Loop(torch.nn.Module):
    """One layer with attention; `between` stands behind it."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.joint, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)
        self.between = between

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows, size = x.shape[:2]
        query, keys, values = (part.view(rows, size, 2, 4).transpose(1, 2) for part in self.joint(x).split(8, dim=-1))
        hides = (1 - mask[:, None, None, :].float()) * -1e9
        shares = torch.softmax(query @ keys.transpose(2, 3) * 0.5 + hides, -1)
        answer: torch.Tensor = self.between(self.out((shares @ values).transpose(1, 2).reshape(rows, size, 8)) + x)
        return answer


BETWEEN = {
    "tokens alone": lambda x: torch.tanh(x) * 2,
    "a mean over tokens": lambda x: x - x.mean(1, keepdim=True),
    "places reversed": lambda x: x.flip(1),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_what_mixes_tokens_gets_all_places(between: str) -> None:
    module = Loop(BETWEEN[between])
    traced, example = frozen(module, torch.randn(2, 40, 8), torch.ones(2, 40, dtype=torch.int64))
    graph = traced.graph
    assert leave_out_padding(traced, list(graph.inputs())[2], shapes(traced, example)) == 1
    lengths = [40, 3, 11, 20]
    mask = batch(lengths, 40)["attention_mask"]
    # Real tokens do not depend on what stands at padding only where nothing mixes them; so padding repeats the last.
    x = torch.randn(4, 40, 8)
    last = torch.minimum(torch.arange(40), torch.tensor(lengths).unsqueeze(1) - 1)
    x = x[torch.arange(4).unsqueeze(1), last]
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(traced(x.clone(), mask), module(x.clone(), mask), rtol=1e-4, atol=1e-5)


def test_what_changes_its_argument_keeps_padding() -> None:
    """In a batch without padding it would change the model's own tensor, in any other a copy."""
    module = Loop(lambda x: x)
    module.out.forward = lambda x: torch.nn.functional.linear(x, torch.eye(8)).add_(1.0)  # type: ignore[assignment,method-assign]
    traced, example = frozen(module, torch.randn(2, 40, 8), torch.ones(2, 40, dtype=torch.int64))
    assert leave_out_padding(traced, list(traced.graph.inputs())[2], shapes(traced, example)) == 0


def test_attention_without_a_mask_keeps_padding() -> None:
    """It reads what stands there."""

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.joint = torch.nn.Linear(8, 8)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            heads = self.joint(x).view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
            return torch.softmax(heads @ heads.transpose(2, 3), -1) @ heads * mask[:, None, :, None]  # type: ignore[no-any-return]

    traced, example = frozen(Bare(), torch.randn(2, 40, 8), torch.ones(2, 40, dtype=torch.int64))
    assert leave_out_padding(traced, list(traced.graph.inputs())[2], shapes(traced, example)) == 0


def test_a_backend_says_nothing_where_nothing_is_dropped() -> None:
    traced, example = frozen(torch.nn.Linear(4, 4), torch.randn(2, 4))
    named = ExampleInputs({"attention_mask": example.as_tuple()[0]})
    assert OnednnBackend().drop_padding(traced, named, "fp32") == (0, [])


def test_threads_share_a_session_of_ragged_batches(tagger: Any) -> None:
    """Each call finds its own plan: nothing of it is kept in the module."""
    from concurrent.futures import ThreadPoolExecutor

    session: Session = load(tagger.output)
    batches = [batch([60 + seed, 5, 20], 60 + seed, seed) for seed in range(8)]
    alone = [session(**inputs)["logits"] for inputs in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, answer in zip(alone, pool.map(lambda inputs: session(**inputs)["logits"], batches), strict=True):
                torch.testing.assert_close(answer, one, rtol=1e-5, atol=1e-6)
