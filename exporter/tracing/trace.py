"""Trace and freeze a module, with example inputs as a dict or as a tuple.

`example_kwarg_inputs` came with torch 2.0. A dict names its inputs, so that their order cannot be mistaken; a tuple
relies on the order of the forward's parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from exporter.loading.model_errors import FAILURES
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.zeroed_memory import zero_new_memory
from exporter.tracing.mask_broadcasting import masks_by_broadcasting
from exporter.tracing.tracer_warnings import Finding, recorded, triage
from runtime.errors import ExportedModelError, TraceError
from runtime.host import torchscript
from runtime.host.requirements import minor
from runtime.host.torchscript import DICT_SINCE, ScriptModule, TracerWarning

logger = logging.getLogger("exporter")


@dataclass(frozen=True)
class Traced:
    """The frozen module, the form of example inputs that worked, and the tracer's warnings."""

    module: ScriptModule
    form: str
    findings: tuple[Finding, ...]


def forms(choice: str, torch_version: str) -> tuple[str, ...]:
    """The forms to try, in order. For an explicit choice there is no fallback.

    Raises:
        TraceError: dict inputs were asked for from a torch that does not take them.
    """
    takes_dict = minor(torch_version) >= DICT_SINCE
    if choice == "dict" and not takes_dict:
        since = ".".join(map(str, DICT_SINCE))
        raise TraceError(
            f"torch {torch_version} takes no dict of example inputs",
            f"torch {since} or newer",
            "use --example-inputs tuple, or auto",
        )
    if choice != "auto":
        return (choice,)
    return ("dict", "tuple") if takes_dict else ("tuple",)


def trace(module: torch.nn.Module, example: ExampleInputs, choice: str, context: AbstractContextManager[Any]) -> Traced:
    """Trace and freeze.

    Raises:
        TraceError: naming the forms tried and the reasons.
    """
    tried = []
    for form in forms(choice, torch.__version__):
        try:
            frozen, findings = _trace(module, example, form, context)
        except FAILURES as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            tried.append(f"{form} example inputs ({reason})")
            logger.warning("tracing with %s example inputs failed: %s", form, reason)
            continue
        for finding in findings:
            if finding.verdict == "baked in":
                # Only INFO: verification shows whether it matters.
                logger.info("tracer: %s", finding)
        return Traced(frozen, form, findings)
    raise TraceError(
        f"stage trace: could not trace with {', nor with '.join(tried)}",
        "a model whose forward pass torch.jit.trace can follow",
    )


@contextmanager
def rewriting(backend: str) -> Iterator[None]:
    """Around passes over a trace: what they cannot follow becomes a TraceError, and another backend is tried.

    Raises:
        TraceError: naming the backend and the reason.
    """
    try:
        yield
    except ExportedModelError:
        raise
    except FAILURES as error:
        logger.debug("rewriting the trace failed", exc_info=True)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise TraceError(
            f"{backend} cannot rewrite the trace ({reason})", "a trace that its passes can follow"
        ) from error


def _trace(
    module: torch.nn.Module, example: ExampleInputs, form: str, context: AbstractContextManager[Any]
) -> tuple[ScriptModule, tuple[Finding, ...]]:
    inputs = example.as_dict() if form == "dict" else example.as_tuple()
    with torch.no_grad(), masks_by_broadcasting(), recorded() as caught:
        traced = torchscript.trace(module, inputs, context)
    for item in caught:
        if not issubclass(item.category, TracerWarning):
            logger.debug("%s: %s", item.category.__name__, item.message)
    arguments = [argument.name for argument in traced._c._get_method("forward").schema.arguments[1:]]
    if arguments != list(example.tensors):
        # A dict is traced in the order of the forward's parameters; the manifest has the plan's order.
        raise ValueError(f"the traced inputs are {arguments}, not {list(example.tensors)}")
    frozen = torchscript.freeze(traced)
    if zeroed := zero_new_memory(frozen):
        logger.info("%d tensors of new memory are zeroed", zeroed)
    if calls := torchscript.python_calls(frozen):
        raise ValueError(f"the model calls {', '.join(sorted(set(calls)))}, Python code that a file cannot hold")
    return frozen, triage(item for item in caught if issubclass(item.category, TracerWarning))
