"""Tracing: the form of the example inputs, the fallback and its log, failures by name."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import shapes
from exporter.tracing.trace import forms, rewriting, trace
from runtime.errors import BackendError, TraceError

FORMS = forms("auto", torch.__version__)
takes_dict = pytest.mark.skipif(
    "dict" not in FORMS, reason="this torch takes no dict: there is nothing to fall back from"
)
EXAMPLE = ExampleInputs({"a": torch.ones(2, 3), "b": torch.zeros(2, 3)})


class Subtract(torch.nn.Module):
    """Not symmetric, so that swapped inputs show."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
        return (a * 2 - b,)


class OnlyPositional(torch.nn.Module):
    """Fails when its inputs come by name, with an error of choice."""

    error: type[Exception] = TypeError

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
        return (a * 2 - b,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            raise self.error("not by name")
        return super().__call__(*args)


@pytest.mark.parametrize(
    ("choice", "version", "expected"),
    [
        ("auto", "1.13.1", ("tuple",)),
        ("auto", "2.0.0", ("dict", "tuple")),
        ("auto", "2.13.0+cpu", ("dict", "tuple")),
        ("dict", "2.0.1", ("dict",)),
        ("tuple", "2.8.0", ("tuple",)),
    ],
)
def test_the_form_follows_the_version(choice: str, version: str, expected: tuple[str, ...]) -> None:
    assert forms(choice, version) == expected


def test_a_dict_before_torch_2_is_refused_by_name() -> None:
    with pytest.raises(
        TraceError, match=r"torch 1\.13\.1 takes no dict .*expected torch 2\.0 .*--example-inputs tuple"
    ):
        forms("dict", "1.13.1")


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_give_the_same_module(form: str) -> None:
    traced = trace(Subtract().eval(), EXAMPLE, form, nullcontext())
    assert traced.form == form
    a, b = torch.rand(5, 1), torch.rand(5, 1)
    assert torch.equal(traced.module(a, b)[0], a * 2 - b)
    assert torch.equal(traced.module(b=b, a=a)[0], a * 2 - b)


@takes_dict
@pytest.mark.parametrize("error", [TypeError, RuntimeError, ValueError, NameError, IndexError])
def test_auto_falls_back_and_says_so(error: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    module = OnlyPositional().eval()
    module.error = error
    with caplog.at_level(logging.WARNING, "exporter"):
        traced = trace(module, EXAMPLE, "auto", nullcontext())
    assert traced.form == "tuple"
    assert f"tracing with dict example inputs failed: {error.__name__}: not by name" in caplog.text


@takes_dict
def test_an_explicit_form_never_falls_back() -> None:
    with pytest.raises(TraceError, match=r"stage trace: could not trace with dict .*not by name"):
        trace(OnlyPositional().eval(), EXAMPLE, "dict", nullcontext())


@takes_dict
def test_when_no_form_works_both_reasons_are_given(caplog: pytest.LogCaptureFixture) -> None:
    class Never(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
            raise IndexError("too few")

    with pytest.raises(TraceError, match=r"dict example inputs \(IndexError: too few\), nor with tuple"):
        trace(Never().eval(), EXAMPLE, "auto", nullcontext())
    assert caplog.text.count("too few") == 2


def test_an_error_of_another_kind_is_a_defect_and_is_not_hidden() -> None:
    class Broken(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace(Broken().eval(), EXAMPLE, "auto", nullcontext())


def test_the_tracers_remarks_are_kept() -> None:
    class Branching(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor]:
            return (a if a.sum() > 0 else b,)

    traced = trace(Branching().eval(), EXAMPLE, "tuple", nullcontext())
    (finding,) = traced.findings
    assert (finding.kind, finding.verdict) == ("python boolean", "baked in")


def test_a_model_that_writes_to_its_own_weights_is_refused_by_name() -> None:
    """Gemma 3n limits some of its weights in each call."""

    class Counting(torch.nn.Module):
        seen: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.add_(1)
            return x * self.seen

    example = ExampleInputs({"x": torch.ones(2, 3)})
    module = trace(Counting().eval(), example, "tuple", nullcontext()).module
    with pytest.raises(TraceError, match="changes weights or buffers of its own"):
        shapes(module, example)


def test_a_pass_that_fails_is_that_backends_failure() -> None:
    words = r"native cannot rewrite the trace \(RuntimeError: no such axis\)"
    with pytest.raises(TraceError, match=words), rewriting("native"):
        raise RuntimeError("no such axis")
    with pytest.raises(BackendError), rewriting("native"):
        raise BackendError("no linear", "one")
