"""A model whose large inner part is a trace: what evaluation calls in the place of the model.

A model of transformers consists of a large inner part (`model.base_model`) and a small head with the loss. Only the
inner part is traced. Head and loss run as they are written, so labels, label names and ignored positions are those of
eager mode, which no trace could promise. A model without such a part is traced as a whole, labels included.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from exporter.trainer.candidates import candidates_of
from exporter.trainer.part import JitPart
from runtime.format.manifest import Precision


def jit_model(
    model: torch.nn.Module,
    example_batch: Mapping[str, Any] | None = None,
    *,
    bf16: bool = False,
    use_ipex: bool = False,
    strict: bool = False,
    like: torch.nn.Module | None = None,
) -> torch.nn.Module:
    """A model of the same class for evaluation, its inner part traced.

    The candidates are timed against each other and against eager mode, and the fastest one that is correct is used.

    Args:
        model: as transformers loads it, or any module that is called with tensors by name; it is put into evaluation
            mode, and otherwise not changed.
        example_batch: inputs by name, with labels if the model takes them; it is traced at once, which shows errors
            now. Without it, the first call is the example.
        bf16: weights and products of the inner part in bf16, the head under autocast.
        use_ipex: optimise with IPEX before the trace. If IPEX fails on the model, a warning says so, and the trace is
            made without it.
        strict: raise if a trace is impossible or wrong, instead of continuing in eager mode with a warning.
        like: what an earlier call returned for this model with other weights, and the same options: what was fastest
            there is used without timing it again.

    Returns:
        A shallow copy in evaluation mode, which shares the head's weights with the original. Train the original.

    Raises:
        RequirementError: IPEX is asked for and cannot be used.
        ExportedModelError: with `strict`.
    """
    precision: Precision = "bf16" if bf16 else "fp32"
    candidates = candidates_of(use_ipex, precision)
    evaluated = copy.copy(model)
    evaluated.__dict__ = dict(model.__dict__)
    evaluated._modules = dict(model._modules)
    # accelerate puts a bound method of the original here.
    evaluated.__dict__.pop("forward", None)
    prefix = getattr(model, "base_model_prefix", "")
    inner = model._modules.get(prefix) if prefix else None
    if inner is not None:
        inner.eval()
        evaluated._modules[prefix] = JitPart(inner, precision, candidates, strict)
        for name, module in evaluated._modules.items():
            if name != prefix and module is not None:
                module.eval()
        evaluated.training = False
        if bf16:
            evaluated.__dict__["forward"] = _under_autocast(evaluated)
    else:
        evaluated = JitPart(model.eval(), precision, candidates, strict)
    for part, earlier in zip(_parts(evaluated), _parts(like), strict=False):
        part.keep_choice(earlier)
    if example_batch is not None:
        with torch.no_grad():
            evaluated(**example_batch)
    return evaluated


def _under_autocast(model: torch.nn.Module) -> Callable[..., Any]:
    """The model's forward, its head computing under bf16 autocast."""
    forward = type(model).forward

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return forward(model, *args, **kwargs)

    return wrapped


def jit_failure(model: torch.nn.Module) -> str | None:
    """Why a model of `jit_model` runs in eager mode; None while its trace is used."""
    return next((part.failure for part in _parts(model) if part.failure), None)


def jit_choice(model: torch.nn.Module) -> str | None:
    """What a model of `jit_model` runs: a backend's name, or `eager` if that was faster; None before the first call."""
    for part in _parts(model):
        if part.failure or part.eager_is_faster:
            return "eager"
        if part.chosen:
            return part.candidates[0].backend.name
    return None


def jit_seconds(model: torch.nn.Module) -> float:
    """What tracing and comparing took so far in a model of `jit_model`."""
    return sum(part.seconds for part in _parts(model))


def _parts(model: torch.nn.Module | None) -> list[JitPart]:
    return [] if model is None else [part for part in model.modules() if isinstance(part, JitPart)]
