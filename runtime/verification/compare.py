"""Compare a session's answers with stored ones.

In: a session and cases. Out: a `Parity` for each output of each case, the worst of several calls. Refuses
(CheckFailedError) an artifact that writes to its caller's tensors.

Errors, for an output `y` and the expected `r` (eager fp32 of the original model):
- `max_abs_error` = max|y - r|, in the output's own units;
- `max_error` = max|y - r| / max|r|, which the tolerance's `max_error` bounds;
- `rms_error` = rms(y - r) / rms(r), which the tolerance's `rms_error` bounds.
Relative to the whole output and not to each number: a logit near zero may be off by more than itself
without any answer changing. A number that is not finite where the expected one is counts as infinite error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.errors import ArtifactFailedError, CheckFailedError
from runtime.format.golden import Case
from runtime.format.manifest import Tolerance
from runtime.host import torchscript
from runtime.session import Session

# TorchScript profiles in the first call and runs the optimised graph from the second on; the third call
# is the first that nothing prepares.
ROUNDS = 3


@dataclass(frozen=True)
class Parity:
    """The worst error of `calls` calls of one case, for one output. See the module's docstring.

    Of the output's `rows` along its last axis, `argmax_mismatches` have their largest number elsewhere than expected.
    A sample has no rows.
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
    session: Session, cases: Sequence[Case], rounds: int = ROUNDS, renew: Callable[[], Session] | None = None
) -> list[Parity]:
    """Call every case once a round, in the order given, and compare each answer.

    Args:
        session: what answers.
        cases: inputs and expected outputs.
        rounds: how often each case is called.
        renew: where given, a case on which the model fails counts as an infinite error, and the others go on with a
            session that this opens: a failure while TorchScript optimises leaves a graph that fails at every shape.

    Raises:
        CheckFailedError: if an input changed during a call, or an answer has another shape.
        ArtifactFailedError: if the model fails, unless `renew` is given.
        InputError: if a case does not fit the manifest.
    """
    worst: dict[tuple[str, str], Parity] = {}
    failed: set[str] = set()
    for number in range(rounds):
        for case in cases:
            if case.name in failed:
                continue
            before = {name: tensor.clone() for name, tensor in case.inputs.items()}
            try:
                answers = session(**case.inputs)
            except ArtifactFailedError:
                if renew is None:
                    raise
                failed.add(case.name)
                session = renew()
                answers = _nothing(case)
            for name, tensor in before.items():
                if not torch.equal(tensor, case.inputs[name]):
                    raise CheckFailedError(
                        f"call {number + 1} of case {case.name} wrote to its caller's input {name!r}",
                        "inputs left as they were",
                    )
            if renew is not None and any(not _fits(answers, case, name) for name in case.outputs):
                # A size that the trace has kept: as wrong as an answer can be.
                answers = _nothing(case)
            for name, expected in case.outputs.items():
                answer = answers.get(name)
                if answer is not None and name in case.strides:
                    answer = answer.flatten()[:: case.strides[name]]
                parity = compare(case.name, name, number + 1, answer, expected)
                known = worst.setdefault((case.name, name), parity)
                worst[case.name, name] = worse(known, parity)
    return list(worst.values())


def _nothing(case: Case) -> dict[str, torch.Tensor]:
    """Answers that are wrong by an infinite error, samples not yet taken."""
    return {
        name: torch.full_like(tensor, math.nan).repeat_interleave(case.strides.get(name, 1))
        if name in case.strides
        else torch.full_like(tensor, math.nan)
        for name, tensor in case.outputs.items()
    }


def _fits(answers: dict[str, torch.Tensor], case: Case, name: str) -> bool:
    """Whether an answer has the expected shape, as far as the case knows it."""
    if name not in answers:
        return False
    if name in case.strides:
        return len(answers[name].flatten()[:: case.strides[name]]) == case.outputs[name].numel()
    return answers[name].shape == case.outputs[name].shape


def executed_operators() -> dict[str, int]:
    """How often each operator stands in the graph that this thread ran last, after optimisation; empty if none did.

    An operator that is told by name what to do besides is listed by both, such as `mkldnn::_linear_pointwise[gelu]`.
    """
    counts: Counter[str] = Counter()
    graph = torchscript.executed_graph()
    blocks: list[Any] = [] if graph is None else [graph]
    while blocks:
        for node in blocks.pop().nodes():
            counts[_operator(node)] += 1
            blocks.extend(node.blocks())
            if node.hasAttribute("Subgraph"):
                blocks.append(node.g("Subgraph"))
    return dict(counts)


def _operator(node: Any) -> str:
    kind = str(node.kind())
    if not kind.startswith(("mkldnn::", "onednn::")):
        return kind
    constants = [value.toIValue() for value in node.inputs() if value.node().kind() == "prim::Constant"]
    return f"{kind}[{next((value for value in constants if isinstance(value, str)), '')}]"


def compare(case: str, output: str, calls: int, answer: torch.Tensor | None, expected: torch.Tensor) -> Parity:
    """The errors of one answer.

    Raises:
        CheckFailedError: there is none, or it has another shape than the expected one.
    """
    if answer is None or answer.shape != expected.shape:
        found = "no such output" if answer is None else f"shape {list(answer.shape)}"
        raise CheckFailedError(f"output {output!r} of case {case}: {found}", f"shape {list(expected.shape)}")
    difference = (answer - expected).abs_()
    if not difference.isfinite().all():
        # Equal infinities (masked logits) are no difference; any other number that is not finite is an infinite one.
        difference = torch.where(answer == expected, torch.zeros_like(expected), difference)
        difference = torch.nan_to_num(difference, nan=math.inf, posinf=math.inf)
    finite = expected if expected.isfinite().all() else expected[expected.isfinite()]
    largest, rms = _size(difference)
    # An output of zeros has no scale of its own: the error itself then counts.
    scale, rms_scale = (value or 1.0 for value in _size(finite))
    rows = expected.numel() // expected.shape[-1] if expected.dim() > 1 else 0
    changed = int((answer.argmax(-1) != expected.argmax(-1)).sum()) if rows else 0
    return Parity(case, output, calls, largest, largest / scale, rms / rms_scale, rows, changed)


def _size(tensor: torch.Tensor) -> tuple[float, float]:
    """The largest absolute value, and the root mean square; zeros of nothing."""
    if not tensor.numel():
        return 0.0, 0.0
    # Float32 additions of millions of numbers would lose digits.
    norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
    return float(tensor.abs().max()), norm / math.sqrt(tensor.numel())


def worse(a: Parity, b: Parity) -> Parity:
    """The larger errors of two parities of one case and output."""
    return Parity(
        a.case,
        a.output,
        max(a.calls, b.calls),
        max(a.max_abs_error, b.max_abs_error),
        max(a.max_error, b.max_error),
        max(a.rms_error, b.rms_error),
        a.rows,
        max(a.argmax_mismatches, b.argmax_mismatches),
    )
