"""Autograd functions written in Python: trace what their forward computes.

A trace records such a function as one call of Python (YOSO's expectation, SEW-D's masked softmax), which cannot be
saved. Nothing is differentiated while tracing, so the forward is called instead, and traced like any other code.
Outside of a trace the function is unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from runtime.host.torchscript import is_tracing

WHAT = "autograd functions of the model's own traced through: a file cannot hold a call of Python"


class _Context:
    """A context for a forward that has no backward."""

    def save_for_backward(self, *_tensors: torch.Tensor) -> None:
        """Nothing is kept."""

    mark_non_differentiable = mark_dirty = save_for_backward


def repair(model: torch.nn.Module) -> bool:
    """Make every such function in the files of the model's classes traceable."""
    functions = list(_functions(model))
    for function in functions:
        if "apply" not in vars(function):
            function.apply = _traceable(function, function.apply)
    return bool(functions)


def _functions(model: torch.nn.Module) -> Iterator[Any]:
    files = {type(part).__module__ for part in model.modules()}
    for name in sorted(file for file in files if not file.startswith("torch.") and file in sys.modules):
        for value in vars(sys.modules[name]).values():
            if isinstance(value, type) and issubclass(value, torch.autograd.Function) and value.__module__ == name:
                yield value


def _traceable(function: Any, apply: Any) -> Any:
    # Functions of the newer form set up their context in a separate method.
    alone = function.setup_context is not torch.autograd.Function.setup_context

    def traceable(*arguments: Any) -> Any:
        if not is_tracing():
            return apply(*arguments)
        return function.forward(*arguments) if alone else function.forward(_Context(), *arguments)

    return staticmethod(traceable)
