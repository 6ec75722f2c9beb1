"""Compare a session's outputs with stored ones.

The errors of an output `y` against the expected `r` (eager fp32 of the original model):
- `max_abs_error` = max|y - r|, in the output's own units;
- `max_error` = max|y - r| / max|r|, bounded by the tolerance's `max_error`;
- `rms_error` = rms(y - r) / rms(r), bounded by the tolerance's `rms_error`.
They are relative to the whole output and not to each number: a logit near zero may be wrong by more than its own size
without changing any result. A number that is not finite where the expected one is counts as an infinite error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime import preprocessing
from runtime.errors import ArtifactFailedError, CheckFailedError
from runtime.format.golden import Case
from runtime.format.manifest import Tolerance
from runtime.host import torchscript
from runtime.session import Session

# TorchScript profiles in the first call and compiles the optimised graph in the second; the third call is the first
# that only computes.
ROUNDS = 3


@dataclass(frozen=True)
class Comparison:
    """The largest errors of one output in `calls` calls of one case; the module's docstring defines them.

    `argmax_mismatches` of the output's `rows` (along its last axis) have their largest number at another place than
    expected. An output of which only a sample is stored has no rows.
    """

    case: str
    output: str
    calls: int
    max_abs_error: float
    max_error: float
    rms_error: float
    rows: int = 0
    argmax_mismatches: int = 0

    def within(self, tolerance: Tolerance) -> bool:
        """Whether both relative errors are inside the tolerance."""
        return self.max_error <= tolerance.max_error and self.rms_error <= tolerance.rms_error


def run_cases(
    session: Session,
    cases: Sequence[Case],
    rounds: int = ROUNDS,
    reopen: Callable[[], Session] | None = None,
    once: Collection[str] = (),
    tolerance: Tolerance | None = None,
) -> list[Comparison]:
    """Call every case once per round, in the given order, and compare each output.

    Args:
        session: the session to call.
        cases: inputs and expected outputs.
        rounds: how often each case is called.
        reopen: opens another session; with it, a case on which the model fails counts as an infinite error, and the
            other cases continue with the new session. (If a call fails while TorchScript optimises, the graph that it
            leaves fails at every shape.) Without it, the failure is raised.
        once: names of cases that are called in the first round alone.
        tolerance: if it is given, an error beyond it ends the calls after the first round.

    Raises:
        CheckFailedError: if an input changed during a call, or an output has another shape than expected.
        ArtifactFailedError: if the model fails, unless `reopen` is given.
        InputError: if a case does not fit the manifest.
    """
    worst: dict[tuple[str, str], Comparison] = {}
    failed: set[str] = set()
    for number in range(rounds):
        for case in cases:
            if case.name in failed or (number and case.name in once):
                continue
            before = {name: tensor.clone() for name, tensor in case.inputs.items()}
            try:
                outputs = session(**case.inputs)
            except ArtifactFailedError:
                if reopen is None:
                    raise
                failed.add(case.name)
                session = reopen()
                outputs = _wrong_outputs(case)
            for name, tensor in before.items():
                if not torch.equal(tensor, case.inputs[name]):
                    raise CheckFailedError(
                        f"call {number + 1} of case {case.name} wrote to its caller's input {name!r}",
                        "inputs left as they were",
                    )
            if reopen is not None and any(not _has_expected_shape(outputs, case, name) for name in case.outputs):
                # The trace has kept a size of its example inputs.
                outputs = _wrong_outputs(case)
            for name, expected in case.outputs.items():
                output = outputs.get(name)
                if output is not None and name in case.strides:
                    output = output.flatten()[:: case.strides[name]]
                comparison = compare(case.name, name, number + 1, output, expected)
                known = worst.setdefault((case.name, name), comparison)
                worst[case.name, name] = worse(known, comparison)
        if tolerance is not None and not all(one.within(tolerance) for one in worst.values()):
            break
    return list(worst.values())


def check_preprocessing(session: Session, cases: Sequence[Case], tolerance: float) -> None:
    """Compare what the method `preprocess` makes with what is expected. The sizes need not be those of the model.

    Raises:
        CheckFailedError: a result has another shape, or differs by more than the tolerance.
        ArtifactFailedError: the method fails.
    """
    for case in cases:
        (given,) = case.inputs.values()
        made = preprocessing.make(session._module, session.manifest, given)
        for name, expected in case.outputs.items():
            found = made.get(name)
            if found is None or found.shape != expected.shape:
                problem = "nothing" if found is None else f"shape {list(found.shape)}"
                raise CheckFailedError(f"{name}, preprocessed from {case.name}: {problem}", f"{list(expected.shape)}")
            apart = float((found.double() - expected.double()).abs().max())
            if not apart <= tolerance:
                raise CheckFailedError(
                    f"{name}, preprocessed from {case.name}, is off by {apart:.2e}", f"at most {tolerance:.2e}"
                )


def _wrong_outputs(case: Case) -> dict[str, torch.Tensor]:
    """Outputs whose error is infinite, in full size."""
    return {
        name: torch.full_like(tensor, math.nan).repeat_interleave(case.strides.get(name, 1))
        if name in case.strides
        else torch.full_like(tensor, math.nan)
        for name, tensor in case.outputs.items()
    }


def _has_expected_shape(outputs: dict[str, torch.Tensor], case: Case, name: str) -> bool:
    """Whether an output has the expected shape; of a sample only the count of numbers is known."""
    if name not in outputs:
        return False
    if name in case.strides:
        return len(outputs[name].flatten()[:: case.strides[name]]) == case.outputs[name].numel()
    return outputs[name].shape == case.outputs[name].shape


def executed_operators(session: Session) -> dict[str, int]:
    """The count of each operator in the graph that this thread ran last, of this session; empty if it ran none.

    An operator that is told by a string which operation to fuse is listed with it: `mkldnn::_linear_pointwise[gelu]`.
    So is a function of the file itself, by its name: `em_native_linear[gelu]`.
    """
    counts: Counter[str] = Counter()
    blocks: list[Any] = torchscript.executed_graphs(session._module)
    while blocks:
        for node in blocks.pop().nodes():
            counts[_operator(node)] += 1
            blocks.extend(node.blocks())
            if node.hasAttribute("Subgraph"):
                blocks.append(node.g("Subgraph"))
    return dict(counts)


def _operator(node: Any) -> str:
    kind = str(node.kind())
    if kind == "prim::CallMethod":
        kind = str(node.s("name"))
    elif not kind.startswith(("mkldnn::", "onednn::")):
        return kind
    constants = [value.toIValue() for value in node.inputs() if value.node().kind() == "prim::Constant"]
    return f"{kind}[{next((value for value in constants if isinstance(value, str)), '')}]"


def compare(case: str, output: str, calls: int, found: torch.Tensor | None, expected: torch.Tensor) -> Comparison:
    """The errors of one output.

    Raises:
        CheckFailedError: the output is missing, or has another shape than expected.
    """
    if found is None or found.shape != expected.shape:
        problem = "no such output" if found is None else f"shape {list(found.shape)}"
        raise CheckFailedError(f"output {output!r} of case {case}: {problem}", f"shape {list(expected.shape)}")
    difference = (found - expected).abs_()
    if not difference.isfinite().all():
        # Equal infinities (masked logits) do not differ; any other number that is not finite is an infinite error.
        difference = torch.where(found == expected, torch.zeros_like(expected), difference)
        difference = torch.nan_to_num(difference, nan=math.inf, posinf=math.inf)
    finite = expected if expected.isfinite().all() else expected[expected.isfinite()]
    largest, rms = _size(difference)
    # An output of zeros has no scale: its errors then stay absolute.
    scale, rms_scale = (value or 1.0 for value in _size(finite))
    rows = expected.numel() // expected.shape[-1] if expected.dim() > 1 else 0
    mismatches = int((found.argmax(-1) != expected.argmax(-1)).sum()) if rows else 0
    return Comparison(case, output, calls, largest, largest / scale, rms / rms_scale, rows, mismatches)


def _size(tensor: torch.Tensor) -> tuple[float, float]:
    """The largest absolute value and the root mean square; zeros for an empty tensor."""
    if not tensor.numel():
        return 0.0, 0.0
    # Adding millions of numbers in float32 would lose digits.
    norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
    return float(tensor.abs().max()), norm / math.sqrt(tensor.numel())


def worse(a: Comparison, b: Comparison) -> Comparison:
    """The larger errors of two comparisons of the same case and output."""
    return Comparison(
        a.case,
        a.output,
        max(a.calls, b.calls),
        max(a.max_abs_error, b.max_abs_error),
        max(a.max_error, b.max_error),
        max(a.rms_error, b.rms_error),
        a.rows,
        max(a.argmax_mismatches, b.argmax_mismatches),
    )
