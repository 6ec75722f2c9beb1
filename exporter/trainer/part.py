"""A part of a model, and in its place a trace of it that is compared with it as it goes.

In: a module in evaluation mode, a precision, whether IPEX is used. Out: a module that is called as it is. Refuses
nothing but with `strict`: where the part cannot be traced, or answers wrongly, the reason is logged once and the part
goes on in eager mode.

One trace a set of arguments, made at their first call. It is not trusted at sizes it has not shown itself right at: the
first `CHECKED` different shapes, and every shape beyond the largest or below the smallest so far, are compared with the
original in fp32.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from exporter import patches
from exporter.backends import choose_backend, onednn_problem
from exporter.failures import FAILURES
from exporter.inputs import ExampleInputs
from exporter.tolerances import TOLERANCES, WIDEST
from exporter.trace import trace
from exporter.trainer.answers import Form, form_of, put_together, taken_apart
from exporter.trainer.traceable import Traceable
from runtime import environment
from runtime.check import Parity, compare
from runtime.errors import CheckFailedError, ExportedModelError, TraceError, VerificationError
from runtime.manifest import Precision, Tolerance
from runtime.torchscript import ScriptModule, optimising

logger = logging.getLogger("exporter")

# Different shapes that are compared; each costs one call in eager mode.
CHECKED = 8
# Different kinds of arguments (which tensors, which settings), each with a trace and a copy of the weights.
MOST_TRACES = 4
# TorchScript profiles in the first call and optimises in the second.
_WARM_UP = 2


@dataclass
class _Trace:
    """A traced part: its module, whether TorchScript optimises it, its answers' form, the sizes it was right at."""

    module: ScriptModule
    optimise: bool
    form: Form
    right: set[tuple[int, ...]] = field(default_factory=set)

    def covers(self, sizes: tuple[int, ...]) -> bool:
        """Whether these sizes need no comparison."""
        if sizes in self.right:
            return True
        if len(self.right) < CHECKED:
            return False
        return all(min(seen) <= size <= max(seen) for size, *seen in zip(sizes, *self.right, strict=True))


class JitPart(torch.nn.Module):
    """Stands in the place of a part of a model, and calls its trace; everything else is the part's own.

    Args:
        part: in evaluation mode; it is copied before anything is changed.
        precision: `fp32` or `bf16`.
        use_ipex: optimise with IPEX before the trace, else with PyTorch's own oneDNN operators where torch has them.
        strict: raise where a trace is impossible or wrong, instead of going on in eager mode.
    """

    def __init__(self, part: torch.nn.Module, precision: Precision, use_ipex: bool, strict: bool) -> None:
        super().__init__()
        # Not as a submodule: its weights are the original's, and moving this model must not move them.
        object.__setattr__(self, "part", part)
        self.precision = precision
        self.use_ipex = use_ipex
        self.strict = strict
        # Why the part runs in eager mode; None while it does not.
        self.failure: str | None = None
        # What tracing and comparing took so far.
        self.seconds = 0.0
        self._signature = inspect.signature(part.forward)
        self._traces: dict[Any, _Trace] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "part"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The part's answer, as its own `forward` gives it, without caches.

        Raises:
            ExportedModelError: with `strict`: the part cannot be traced, or its trace is wrong.
        """
        if self.failure is None:
            tensors, others = self._arguments(args, kwargs)
            try:
                return self._traced(tensors, others)
            # Those of the original Trainer (RuntimeError, TypeError, ValueError, NameError, IndexError) are among them.
            except (*FAILURES, ExportedModelError) as error:
                if self.strict:
                    raise
                self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                logger.warning("failed to use PyTorch jit mode due to: %s", self.failure)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            return self.part(*args, **kwargs)

    def _arguments(self, args: Any, kwargs: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The tensors by name, and all else that was given; what is None is left out."""
        bound = self._signature.bind(*args, **kwargs)
        given: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            given |= value if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        # The Trainer's, for the loss alone, another one with each batch.
        given.pop("num_items_in_batch", None)
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        others = {name: value for name, value in given.items() if name not in tensors and value is not None}
        # A cache is of no use to a single pass, and no trace holds one.
        if "use_cache" in self._signature.parameters:
            others["use_cache"] = False
        return tensors, others

    def _traced(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> Any:
        key = (
            tuple((name, tensor.dtype, tensor.dim()) for name, tensor in tensors.items()),
            repr(sorted(others.items())),
        )
        sizes = tuple(size for tensor in tensors.values() for size in tensor.shape)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            if key not in self._traces:
                if len(self._traces) == MOST_TRACES:
                    raise TraceError(f"{MOST_TRACES} kinds of arguments were traced, and another came", "fewer kinds")
                start = perf_counter()
                self._traces[key] = self._make(tensors, others)
                self.seconds += perf_counter() - start
            known = self._traces[key]
            with optimising(known.optimise):
                answers = known.module(*tensors.values())
            if not known.covers(sizes):
                start = perf_counter()
                self._compare(known, answers, tensors, others)
                known.right.add(sizes)
                self.seconds += perf_counter() - start
        return put_together(known.form, answers)

    def _make(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> _Trace:
        here = environment.detect()
        backend, _ = choose_backend(backend_of(self.use_ipex), here)
        environment.check_cpu(
            backend.requirements(self.precision, here).cpu_flags, f"{self.precision} in jit mode", here
        )
        form = form_of(self._eager(tensors, others))
        part = copy.deepcopy(self.part).float().eval()
        if hasattr(part, "set_attn_implementation"):
            # Written out: the form that backends fuse.
            part.set_attn_implementation("eager")
        patches.repair(part)
        example = ExampleInputs(tensors)
        module = Traceable.of(part, tuple(tensors), others, lambda answer: taken_apart(answer, form))
        traced = trace(backend.optimise(module, self.precision), example, "auto", backend.autocast(self.precision))
        logger.debug("jit mode: %s; %s", backend.name, backend.rewrite(traced.module, example))
        if hasattr(traced.module, "prepare"):
            traced.module.prepare()
        for _ in range(_WARM_UP if backend.optimised_at_run else 0):
            traced.module(*tensors.values())
        return _Trace(traced.module, backend.optimised_at_run, form)

    def _eager(self, tensors: Mapping[str, torch.Tensor], others: Mapping[str, Any]) -> Any:
        """The original's answer in fp32."""
        part = self.part
        if any(tensor.dtype == torch.bfloat16 for tensor in part.state_dict().values()):
            part = copy.deepcopy(part).float()
        return part(**tensors, **others)

    def _compare(self, known: _Trace, answers: Any, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        """Raise VerificationError unless the trace answers as the original does."""
        expected = taken_apart(self._eager(tensors, others), known.form)
        for number, (answer, reference) in enumerate(zip(answers, expected, strict=True)):
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
            try:
                parity = compare(shapes, f"output {number}", 1, answer.float(), reference.float())
            except CheckFailedError as error:
                raise VerificationError(f"the trace is wrong: {error}", "eager fp32's answer") from error
            if not parity.within(_tolerance(self.precision)):
                raise VerificationError(_words(parity), "eager fp32's answer")


def backend_of(use_ipex: bool) -> str:
    """The name of the backend that optimises a part before or after its trace."""
    if use_ipex:
        return "ipex"
    return "onednn" if onednn_problem(environment.detect()) is None else "plain"


def _tolerance(precision: Precision) -> Tolerance:
    # In fp32 the widest: which rounding is the model's own is not measured here.
    return WIDEST if precision == "fp32" else TOLERANCES[precision, "scores"]


def _words(parity: Parity) -> str:
    return (
        f"the trace is wrong at {parity.case}: {parity.output} max error {parity.max_error:.2e}, "
        f"rms {parity.rms_error:.2e}"
    )
