"""The answers of a model's inner part, taken apart for the tracer and put together again for the rest of the model.

In: what a module of transformers returned. Out: its floating-point tensors in order; and from such tensors a value of
the same class with the same fields. Refuses (TraceError) answers that are no tensor, tuple or mapping. Caches and other
objects are left out: evaluation does not use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.errors import TraceError


@dataclass(frozen=True)
class Form:
    """How an answer is built: a leaf, or a class with named or numbered parts, of which some are left out."""

    kind: type | None
    parts: tuple[tuple[str | int, Form], ...] = ()


_TENSOR = Form(None)


def form_of(answer: Any) -> Form:
    """The form of an answer.

    Raises:
        TraceError: it holds no floating-point tensor.
    """
    form = _form(answer)
    if form is None:
        raise TraceError(
            f"the model answers with {type(answer).__name__}, in which there is no tensor of floating-point numbers",
            "tensors, in a tuple or in one of transformers' outputs",
        )
    return form


def _form(answer: Any) -> Form | None:
    if isinstance(answer, torch.Tensor):
        return _TENSOR if answer.is_floating_point() else None
    if isinstance(answer, Mapping):
        items: Sequence[tuple[str | int, Any]] = list(answer.items())
    elif isinstance(answer, (tuple, list)):
        items = list(enumerate(answer))
    else:
        return None
    parts = tuple((name, form) for name, value in items if (form := _form(value)) is not None)
    return Form(type(answer), parts) if parts else None


def taken_apart(answer: Any, form: Form) -> list[torch.Tensor]:
    """The tensors of an answer of this form, in order."""
    if form.kind is None:
        return [answer]
    return [tensor for name, part in form.parts for tensor in taken_apart(answer[name], part)]


def put_together(form: Form, tensors: Sequence[torch.Tensor]) -> Any:
    """An answer of this form; fields that were left out are missing, or None in a class that declares them."""
    return _built(form, iter(tensors))


def _built(form: Form, tensors: Any) -> Any:
    if form.kind is None:
        return next(tensors)
    values = {name: _built(part, tensors) for name, part in form.parts}
    if issubclass(form.kind, (tuple, list)):
        # Numbers may have gaps where something was left out: what comes behind keeps its place.
        return tuple(values.get(index) for index in range(max(map(int, values)) + 1))
    return form.kind(**{str(name): value for name, value in values.items()})
