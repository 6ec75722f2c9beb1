"""The adapter: fixed signature in, tensors out, the same numbers as the model gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter import ExportRequest
from exporter.adapter import Adapter, _pool, adapt
from exporter.inputs import make_inputs
from exporter.plan import TracePlan, make_plan
from exporter.source import Source, load_source

Folder = Callable[..., Path]


def adapted(folder: Path, task: str = "auto") -> tuple[Source, TracePlan, Adapter]:
    request = ExportRequest(str(folder), "unused.pt", task=task)
    source = load_source(request)
    plan = make_plan(source, request)
    return source, plan, adapt(source, plan, make_inputs(plan, plan.example))


def test_the_signature_names_the_plans_inputs(tiny_folder: Folder) -> None:
    _, plan, adapter = adapted(tiny_folder("bert", "question-answering"))
    assert list(inspect.signature(adapter.forward).parameters) == [spec.name for spec in plan.inputs]
    assert not adapter.training


def test_the_outputs_are_the_models(tiny_folder: Folder) -> None:
    source, plan, adapter = adapted(tiny_folder("bert", "question-answering"))
    inputs = make_inputs(plan, {"batch": 2, "sequence": 7}, [7, 3])
    with torch.no_grad():
        expected = source.model(**inputs.as_dict())
        by_name, by_order = adapter(**inputs.as_dict()), adapter(*inputs.as_tuple())
    assert adapter.outputs == ("start_logits", "end_logits")
    for name, one, two in zip(adapter.outputs, by_name, by_order, strict=True):
        assert torch.equal(one, expected[name]) and torch.equal(two, expected[name])


def test_an_output_that_the_model_does_not_give_is_left_out(tiny_folder: Folder) -> None:
    _, _, with_pooler = adapted(tiny_folder("bert", "feature-extraction"))
    assert with_pooler.outputs == ("last_hidden_state", "pooler_output")
    _, _, without = adapted(tiny_folder("distilbert", "feature-extraction"))
    assert without.outputs == ("last_hidden_state",)


def test_sentence_vectors_are_those_of_sentence_transformers(minilm: Path) -> None:
    """The reference implementation, on real sentences of several lengths."""
    from sentence_transformers import SentenceTransformer

    sentences = ["A cat.", "A much longer sentence about a cat that sleeps on a warm stove.", "x"]
    source, plan, adapter = adapted(minilm)
    reference = SentenceTransformer(str(minilm), device="cpu")
    tokens = reference.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        (vectors,) = adapter(**{spec.name: tokens[spec.name] for spec in plan.inputs})
    expected = torch.as_tensor(reference.encode(sentences))
    assert torch.allclose(vectors, expected, atol=1e-6)


VECTORS = torch.tensor([[[1.0, 8.0], [3.0, 2.0], [50.0, 50.0]], [[50.0, 50.0], [4.0, -2.0], [6.0, -6.0]]])
MASK = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]).unsqueeze(-1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [[2.0, 5.0], [5.0, -4.0]]),
        ("max", [[3.0, 8.0], [6.0, -2.0]]),
        ("cls", [[1.0, 8.0], [4.0, -2.0]]),
        ("mean_sqrt_len", [[4.0 / 2**0.5, 10.0 / 2**0.5], [10.0 / 2**0.5, -8.0 / 2**0.5]]),
    ],
)
def test_pooling_by_hand(mode: str, expected: list[list[float]]) -> None:
    """Padding on the right in the first row, on the left in the second; its vectors must not count."""
    assert torch.allclose(_pool(mode, VECTORS, MASK), torch.tensor(expected))
