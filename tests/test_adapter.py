"""The adapter: fixed signature in, tensors out, the same numbers as the model gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter import ExportRequest
from exporter.loading.loader import Source, load_source
from exporter.loading.pooling import MODES, Pooling
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import TracePlan, make_plan
from exporter.tracing.adapter import Adapter, adapt

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


@pytest.mark.parametrize("prompt", [0, 2])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), ("lasttoken", "cls"), MODES])
def test_poolings_are_those_of_sentence_transformers(modes: tuple[str, ...], side: str, prompt: int) -> None:
    """Rows of several lengths, padded on either side; a prompt's tokens in front, left out."""
    # Older releases take other arguments, and have fewer poolings.
    Reference = pytest.importorskip("sentence_transformers.sentence_transformer.modules").Pooling

    vectors = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(9) < torch.tensor([[9], [5], [3]])).long()
    mask = mask.flip(1) if side == "left" else mask
    features = {"token_embeddings": vectors, "attention_mask": mask, "prompt_length": prompt}
    expected = Reference(4, modes, include_prompt=False)(features)["sentence_embedding"]
    pooled = mask * (mask.cumsum(1) > prompt)
    assert torch.allclose(Pooling(modes)(vectors, mask, pooled), expected, atol=1e-6)
