"""What goes in: which inputs, in which order, and real tensors for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import ExportRequest
from exporter.loading.loader import load_source
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import TracePlan, make_plan
from runtime.errors import RequestError

Folder = Callable[..., Path]


def plan_of(folder: Path, **options: Any) -> TracePlan:
    request = ExportRequest(str(folder), "unused.pt", **options)
    return make_plan(load_source(request), request)


def test_inputs_in_the_order_of_forward(tiny_folder: Folder) -> None:
    plan = plan_of(tiny_folder("bert", "text-classification"))
    assert [spec.name for spec in plan.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [spec.fill for spec in plan.inputs] == [None, 1, 0]
    assert plan.inputs[0].values is not None and plan.inputs[0].values.maximum == 299


def test_token_types_are_dropped_where_there_is_only_one(tiny_folder: Folder) -> None:
    plan = plan_of(tiny_folder("roberta", "text-classification", type_vocab_size=1))
    assert [spec.name for spec in plan.inputs] == ["input_ids", "attention_mask"]
    assert any("token_type_ids dropped" in choice for choice in plan.choices)


def test_a_model_without_token_types(tiny_folder: Folder) -> None:
    assert [spec.name for spec in plan_of(tiny_folder("distilbert")).inputs] == ["input_ids", "attention_mask"]


def test_the_example_is_no_longer_than_the_model_admits(tiny_folder: Folder) -> None:
    folder = tiny_folder("bert", "text-classification", max_position_embeddings=40)
    assert plan_of(folder).example["sequence"] == 40
    with pytest.raises(RequestError, match="sequence_length is 41; expected at most 40"):
        plan_of(folder, sequence_length=41)


def test_the_example_has_the_sizes_asked_for(tiny_folder: Folder) -> None:
    plan = plan_of(tiny_folder(), batch_size=3, sequence_length=20)
    assert plan.example == {"batch": 3, "sequence": 20}


def test_inputs_are_the_same_for_the_same_seed(tiny_folder: Folder) -> None:
    plan = plan_of(tiny_folder())
    one, two, three = (
        make_inputs(plan, {"batch": 2, "sequence": 9}, seed=seed).tensors["input_ids"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)


def test_padded_rows(minilm: Path) -> None:
    plan = plan_of(minilm)
    inputs = make_inputs(plan, {"batch": 2, "sequence": 6}, [6, 2]).tensors
    assert inputs["attention_mask"].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert (inputs["input_ids"][1, 2:] == plan.pad_id).all()
    real = inputs["input_ids"][inputs["attention_mask"].bool()]
    # Special tokens mean something to some models (end tokens, for instance): examples avoid them.
    assert not set(real.tolist()) & set(plan.avoided_ids)
    # Both segments appear: a trace that ignored them would otherwise go unseen.
    assert set(inputs["token_type_ids"][0].tolist()) == {0, 1}


@pytest.mark.parametrize("lengths", [[7, 1], [0, 1], [1], [1, 1, 1]])
def test_lengths_that_do_not_fit(tiny_folder: Folder, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        make_inputs(plan_of(tiny_folder()), {"batch": 2, "sequence": 6}, lengths)
