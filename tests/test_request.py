"""The request: values that are not allowed never reach the pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from exporter import ExportRequest
from runtime.errors import RequestError


def test_defaults() -> None:
    request = ExportRequest("bert-base", "model.pt")
    assert (request.task, request.precision, request.backend, request.example_inputs) == (
        "auto",
        "fp32",
        "auto",
        "auto",
    )
    assert not (request.trust_remote_code or request.allow_pickle or request.allow_new_head or request.force)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "translation"),
        ("precision", "fp16"),
        ("backend", "onnx"),
        ("example_inputs", "list"),
        ("batch_size", 1),
        ("sequence_length", 1),
        ("model", ""),
        ("model", 5),
        ("output", None),
        ("batch_size", "2"),
        ("batch_size", 2.5),
        ("seed", -1),
        ("seed", 10**30),
        ("output", ""),
    ],
)
def test_a_value_that_is_not_allowed(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field):
        ExportRequest(**({"model": "bert-base", "output": "model.pt"} | {field: value}))


def test_random_weights_come_from_no_pickle() -> None:
    with pytest.raises(RequestError, match="allow_pickle"):
        ExportRequest("bert-base", "model.pt", random_weights=True, allow_pickle=True)
