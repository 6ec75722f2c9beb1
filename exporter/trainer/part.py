"""A part of a model, replaced by a trace of it that is compared with the original while it is used.

If the part cannot be traced, or the trace is wrong, the reason is logged once and the part runs in eager mode; with
`strict` the error is raised.

There is one trace per set of arguments. It is made at their first call, by the fastest candidate that is correct there;
if eager mode is faster than each of them, the part runs in eager mode. What was fastest for the first set of arguments
is kept for the others. The first `CHECKED` different shapes, and every shape larger or smaller than all before, are
compared with the original in fp32. A trace that is wrong at another shape keeps a decision of its example; no other
candidate would help.
"""

from __future__ import annotations

import copy
import inspect
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from exporter.backends.candidates import Candidate
from exporter.config.tolerances import TOLERANCES, WIDEST
from exporter.loading.model_errors import FAILURES
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing import patches
from exporter.tracing.trace import trace
from exporter.trainer.candidates import in_jit_mode
from exporter.trainer.outputs import Structure, flatten, structure_of, unflatten
from exporter.trainer.traceable import Traceable
from runtime.errors import CheckFailedError, ExportedModelError, TraceError, VerificationError
from runtime.format.manifest import Precision
from runtime.host import requirements
from runtime.host.torchscript import ScriptModule, optimized_execution
from runtime.verification.compare import Comparison, compare

logger = logging.getLogger("exporter")

# How many different shapes are compared; each costs one call in eager mode.
CHECKED = 8
# How many sets of arguments (which tensors, which settings) are traced, each with a copy of the weights.
MOST_TRACES = 4
# TorchScript profiles in the first call and optimises in the second.
_WARM_UP = 2
# Two ways to compute are timed in turns, for so many seconds in all, but with at least and at most so many rounds.
_TIMING_S, _ROUNDS = 0.5, (2, 15)
# A trace must be faster by this much to be taken for one of a candidate before it: less is noise.
_MARGIN = 0.02


@dataclass
class _Trace:
    """A traced part: whether TorchScript optimises it, the structure of its output, the sizes at which it was right."""

    module: ScriptModule
    optimise: bool
    structure: Structure
    right: set[tuple[int, ...]] = field(default_factory=set)

    def covers(self, sizes: tuple[int, ...]) -> bool:
        """Whether these sizes need no comparison."""
        if sizes in self.right:
            return True
        if len(self.right) < CHECKED:
            return False
        return all(min(seen) <= size <= max(seen) for size, *seen in zip(sizes, *self.right, strict=True))


class JitPart(torch.nn.Module):
    """Replaces a part of a model and calls its trace; all other attributes are the part's own.

    Args:
        part: in evaluation mode; it is copied before anything is changed.
        precision: `fp32` or `bf16`.
        candidates: what to trace with, in order.
        strict: raise if a trace is impossible or wrong, instead of continuing in eager mode.
    """

    def __init__(
        self, part: torch.nn.Module, precision: Precision, candidates: Sequence[Candidate], strict: bool
    ) -> None:
        super().__init__()
        # Not a submodule: the weights are the original's, and moving this model must not move them.
        object.__setattr__(self, "part", part)
        self.precision = precision
        # Those that have not failed.
        self.candidates = list(candidates)
        self.strict = strict
        # Why the part runs in eager mode; None while it does not, or does because that is faster.
        self.failure: str | None = None
        # Whether eager mode was faster than every trace.
        self.eager_is_faster = False
        # Whether it is known what is fastest.
        self.chosen = False
        # How long tracing and comparing took so far.
        self.seconds = 0.0
        self._signature = inspect.signature(part.forward)
        self._traces: dict[Any, _Trace] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "part"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The part's output, as its own `forward` gives it, without caches.

        Raises:
            ExportedModelError: with `strict`: the part cannot be traced, or its trace is wrong.
        """
        if self.failure is None and not self.eager_is_faster:
            tensors, others = self._arguments(args, kwargs)
            try:
                return self._traced(tensors, others)
            # These include what the original Trainer caught: RuntimeError, TypeError, ValueError, NameError,
            # IndexError.
            except (*FAILURES, ExportedModelError) as error:
                if self.strict:
                    raise
                self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                logger.warning("failed to use PyTorch jit mode due to: %s", self.failure)
        return self._as_eager_mode(*args, **kwargs)

    def keep_choice(self, other: JitPart) -> None:
        """Take over what another part found to be fastest: the same one with other weights."""
        if other.chosen:
            self.candidates, self.eager_is_faster, self.chosen = list(other.candidates), other.eager_is_faster, True

    def _as_eager_mode(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            return self.part(*args, **kwargs)

    def _arguments(self, args: Any, kwargs: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The tensors by name, and all other arguments that are not None."""
        bound = self._signature.bind(*args, **kwargs)
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            arguments |= (
                value if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
            )
        # From the Trainer, for the loss only; it differs from batch to batch.
        arguments.pop("num_items_in_batch", None)
        tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
        others = {name: value for name, value in arguments.items() if name not in tensors and value is not None}
        # A single pass needs no cache, and a trace cannot hold one.
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
                    raise TraceError(f"more than {MOST_TRACES} sets of arguments", f"at most {MOST_TRACES}")
                start = perf_counter()
                self._traces[key], outputs = self._fastest_right(tensors, others)
                made = self._traces[key]
                made.right.add(sizes)
                if self.eager_is_faster:
                    # Not needed again.
                    self._traces.clear()
                self.seconds += perf_counter() - start
                return unflatten(made.structure, outputs)
            known = self._traces[key]
            outputs = self._run(known, tensors)
            if not known.covers(sizes):
                start = perf_counter()
                self._compare(known, outputs, tensors, self._eager(tensors, others))
                known.right.add(sizes)
                self.seconds += perf_counter() - start
        return unflatten(known.structure, outputs)

    def _fastest_right(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> tuple[_Trace, Any]:
        """The trace by the fastest candidate that is correct on its example, and its outputs.

        Until it is known which is fastest, it is compared with eager mode too (`eager_is_faster`).

        Raises:
            Exception: the first failure, if no candidate is correct.
        """
        failed: dict[str, Exception] = {}
        found: tuple[Candidate, _Trace, Any] | None = None
        eager = self._eager(tensors, others)
        structure = structure_of(eager)
        for candidate in self.candidates:
            try:
                made = self._make(candidate, tensors, others, structure)
                outputs = self._run(made, tensors)
                self._compare(made, outputs, tensors, eager)
            except (*FAILURES, ExportedModelError) as raised:
                error = in_jit_mode(raised) if isinstance(raised, ExportedModelError) else raised
                logger.info("jit mode: %s failed: %s", candidate.name, error)
                failed.setdefault(candidate.backend.name, error)
                continue
            if found is None or self._share(made, found[1], tensors) < 1 - _MARGIN:
                found = candidate, made, outputs
            if self.chosen:
                break
        if found is None:
            raise next(iter(failed.values()))
        if not self.chosen:
            if "ipex" in failed and found[0].backend.name != "ipex":
                logger.warning("jit mode goes on without IPEX: %s", failed["ipex"])
            self._choose(found[0], found[1], tensors, others)
        return found[1:]

    def _choose(self, candidate: Candidate, made: _Trace, tensors: dict[str, torch.Tensor], others: Any) -> None:
        """Keep the candidate in front of the others, or eager mode if that is faster."""
        share = _share_of_time(lambda: self._run(made, tensors), lambda: self._as_eager_mode(**tensors, **others))
        self.eager_is_faster = share > 1
        self.chosen = True
        self.candidates = [candidate, *(other for other in self.candidates if other is not candidate)]
        logger.info(
            "jit mode: %s takes %.2f of the time of eager mode%s",
            *(candidate.name, share, ", which is used" if self.eager_is_faster else ""),
        )

    def _share(self, made: _Trace, other: _Trace, tensors: dict[str, torch.Tensor]) -> float:
        """The time that one trace takes of another's."""
        return _share_of_time(lambda: self._run(made, tensors), lambda: self._run(other, tensors))

    def _run(self, known: _Trace, tensors: Mapping[str, torch.Tensor]) -> Any:
        with optimized_execution(known.optimise):
            return known.module(*tensors.values())

    def _make(
        self, candidate: Candidate, tensors: dict[str, torch.Tensor], others: dict[str, Any], structure: Structure
    ) -> _Trace:
        environment, backend = requirements.detect(), candidate.backend
        requirements.check_cpu(
            backend.requirements(self.precision, environment).cpu_flags, f"{self.precision} in jit mode", environment
        )
        part = copy.deepcopy(self.part).float().eval()
        if hasattr(part, "set_attn_implementation"):
            part.set_attn_implementation(candidate.attention)
        patches.repair(part)
        example = ExampleInputs(tensors)
        module = Traceable.of(part, tuple(tensors), others, lambda output: flatten(output, structure))
        traced = trace(backend.optimise(module, self.precision), example, "auto", backend.autocast(self.precision))
        logger.debug("jit mode: %s; %s", backend.name, backend.rewrite(traced.module, example, self.precision))
        if hasattr(traced.module, "prepare"):
            traced.module.prepare()
        for _ in range(_WARM_UP if backend.optimised_at_run else 0):
            traced.module(*tensors.values())
        return _Trace(traced.module, backend.optimised_at_run, structure)

    def _eager(self, tensors: Mapping[str, torch.Tensor], others: Mapping[str, Any]) -> Any:
        """The original's output in fp32."""
        part = self.part
        if any(tensor.dtype == torch.bfloat16 for tensor in part.state_dict().values()):
            part = copy.deepcopy(part).float()
        return part(**tensors, **others)

    def _compare(self, known: _Trace, outputs: Any, tensors: dict[str, torch.Tensor], eager: Any) -> None:
        """Raise VerificationError unless the trace's outputs are like the original's in fp32, `eager`."""
        expected = flatten(eager, known.structure)
        for number, (output, reference) in enumerate(zip(outputs, expected, strict=True)):
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
            try:
                comparison = compare(shapes, f"output {number}", 1, output.float(), reference.float())
            except CheckFailedError as error:
                raise VerificationError(f"the trace is wrong: {error}", "the output of eager fp32") from error
            # In fp32 the widest tolerance: the model's own rounding errors are not measured here.
            if not comparison.within(WIDEST if self.precision == "fp32" else TOLERANCES[self.precision, "scores"]):
                raise VerificationError(_describe(comparison), "the output of eager fp32")


def _share_of_time(one: Callable[[], Any], other: Callable[[], Any]) -> float:
    """The time that one takes of the other's: the ratio of the medians of calls in turns, after a call of each."""
    one(), other()
    times: tuple[list[float], list[float]] = ([], [])
    least, most = _ROUNDS
    end = perf_counter() + _TIMING_S
    while len(times[0]) < least or (perf_counter() < end and len(times[0]) < most):
        for found, call in zip(times, (one, other), strict=True):
            start = perf_counter()
            call()
            found.append(perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def _describe(comparison: Comparison) -> str:
    return (
        f"the trace is wrong at {comparison.case}: {comparison.output} max error {comparison.max_error:.2e}, "
        f"rms {comparison.rms_error:.2e}"
    )
