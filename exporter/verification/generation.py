"""What generation is verified with: rows and their logits in eager fp32, and the tokens that transformers writes.

The comparison is made by `runtime.verification.generation`, in a fresh process.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporter.loading.generation_settings import without_settings
from exporter.loading.model_errors import named_model_errors
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.subprocesses import allowing
from exporter.verification.verify import run_worker, working_files
from runtime.errors import ModelFailedError, VerificationError
from runtime.format.golden import Case
from runtime.format.manifest import GreedyCheck, Manifest, Tolerance
from runtime.verification.compare import Comparison
from runtime.verification.generation import BEAMS, GREEDY, LONGEST

# Lengths of the rows that are read in every way.
_LENGTHS = (1, 9, 20, 33)
# Tokens of the prompts that greedy tokens follow, and how many of these are compared.
_PROMPTS, _TOKENS = (5, 24), 64
# Of the longest row, the logits of so many tokens at its end are compared.
_LAST = 4
# Rows that begin alike, as beams do: how many, their length, and how many of their tokens are the same.
_BEAMS, _BEAM_LENGTH, _SHARED = 3, 16, 9


@dataclass(frozen=True)
class GenerationOutcome:
    """The largest relative errors of `decode`, what was wrong with it, and the greedy tokens that were compared."""

    max_error: float
    rms_error: float
    wrong: tuple[str, ...]
    greedy: tuple[GreedyCheck, ...]

    @property
    def summary(self) -> str:
        """For people."""
        tokens = ", ".join(f"{one.equal} of {one.tokens}" for one in self.greedy)
        text = f"decode in pieces, alone and together: largest max error {self.max_error:.1e}, rms {self.rms_error:.1e}"
        text += f"; greedy tokens equal to transformers' generate: {tokens}"
        differing = [one for one in self.greedy if one.margin is not None]
        if differing:
            text += f" (the first difference where the original's logits are {differing[0].margin:.1e} apart)"
        return text


def generation_cases(model: Any, plan: TracePlan) -> list[Case]:
    """The cases. Run this before any backend changes the model.

    Raises:
        ModelFailedError: the model fails, or its logits are not finite.
    """
    most = plan.dimensions["sequence"].axis.maximum or max(_LENGTHS)
    lengths = sorted({min(length, most) for length in _LENGTHS})
    cases = []
    for seed, length in enumerate(lengths, 101):
        ids = _ids(plan, length, seed)
        cases.append(Case(f"row-{length}", {"input_ids": ids}, {"logits": _logits(model, ids)}))
    if most >= _BEAM_LENGTH:
        ids = torch.cat([_ids(plan, _BEAM_LENGTH, seed) for seed in range(131, 131 + _BEAMS)])
        ids[:, :_SHARED] = ids[:1, :_SHARED].clone()
        cases.append(Case(BEAMS, {"input_ids": ids}, {"logits": _logits(model, ids)}))
    if most > max(lengths):
        ids = _ids(plan, most, 111)
        cases.append(Case(LONGEST, {"input_ids": ids}, {"logits": _logits(model, ids, _LAST)}))
    for seed, length in enumerate(sorted({min(length, most // 2) for length in _PROMPTS} - {0}), 121):
        cases.append(_greedy_case(model, plan, length, min(_TOKENS, most - length), seed))
    return cases


def _ids(plan: TracePlan, length: int, seed: int) -> torch.Tensor:
    return make_inputs(plan, plan.example | {"batch": 1, "sequence": length}, seed=seed).tensors["input_ids"]


def _logits(model: Any, ids: torch.Tensor, last: int = 0) -> torch.Tensor:
    """The logits of all tokens, or of the last ones, in float32."""
    takes = last and "logits_to_keep" in inspect.signature(model.forward).parameters
    with named_model_errors(f"1x{ids.shape[1]}"), torch.no_grad():
        output = model(input_ids=ids, **({"logits_to_keep": last} if takes else {})).logits
    logits: torch.Tensor = output[:, -last:].float().clone()
    if not logits.isfinite().all():
        raise ModelFailedError(f"the original model's logits are not finite at 1x{ids.shape[1]}", "finite numbers")
    return logits


def _greedy_case(model: Any, plan: TracePlan, length: int, tokens: int, seed: int) -> Case:
    ids = _ids(plan, length, seed)
    # The folder's own settings are tried in tests of the project: here are the largest logits compared.
    with named_model_errors(f"1x{length} to generate from"), without_settings(model), torch.no_grad():
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            # No id: the tokens are compared to the end, whatever they mean.
            eos_token_id=plan.inputs[0].values.maximum + 1 if plan.inputs[0].values is not None else None,
            pad_token_id=0,
            use_cache=True,
        )
    # What the logits were at each step, from one pass.
    logits = _logits(model, written[:, :-1], tokens)
    return Case(f"{GREEDY}-{length}", {"input_ids": ids, "tokens": written[:, length:]}, {"logits": logits})


def verify_generation(
    draft: Path, manifest: Manifest, cases: Sequence[Case], allow: Sequence[str] = (), exact: Tolerance | None = None
) -> GenerationOutcome:
    """Run the cases on the draft, in a fresh process.

    If `exact` is given, it applies in place of the manifest's tolerance, and greedy tokens must be equal as in fp32.

    Raises:
        VerificationError: the file fails.
        OSError: the working files cannot be written.
    """
    files = [*working_files(draft, manifest, cases), *allowing(allow)]
    report = run_worker(["generation", *files, "--threads", str(torch.get_num_threads())], draft.parent)
    tolerance, strict = exact or manifest.tolerance, exact is not None or manifest.precision == "fp32"
    comparisons = [Comparison(**row) for row in report["comparisons"]]
    greedy = tuple(GreedyCheck(**row) for row in report["greedy"])
    wrong = [
        f"{one.case}: max error {one.max_error:.2e}, rms {one.rms_error:.2e}"
        for one in comparisons
        if not one.within(tolerance)
    ]
    scales = {case.inputs["input_ids"].shape[1]: case.outputs["logits"].abs().max() for case in cases}
    for one in greedy:
        # Where the original's own best two are nearer than what is allowed, rounding decides which one is larger.
        near = 2 * tolerance.max_error * float(scales[one.prompt])
        if strict and one.margin is not None and not abs(one.margin) <= near:
            wrong.append(f"greedy token {one.equal + 1} behind {one.prompt} tokens is not transformers'")
    return GenerationOutcome(
        max((one.max_error for one in comparisons), default=0.0),
        max((one.rms_error for one in comparisons), default=0.0),
        tuple(wrong),
        greedy,
    )


def generation_refusal(wrong: Sequence[str], tolerance: Tolerance, from_what: str = "") -> VerificationError:
    """The error for an outcome with something wrong; `from_what` it differs, if that is not the original."""
    differs = f" ({from_what})" if from_what else ""
    return VerificationError(
        f"the written file's decode is wrong in {len(wrong)} of its cases{differs}: {'; '.join(wrong[:3])}",
        f"max error at most {tolerance.max_error:.2g} and rms error at most {tolerance.rms_error:.2g}",
    )
