"""The Trainer's jit mode: `evaluate()` and `predict()` use a traced model, training uses the original.

transformers had `jit_mode_eval` (4.20 to 4.57) and `use_ipex` in its TrainingArguments. Releases that still have them
are supported: the flags are read from there, and the Trainer's own jit mode is switched off.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

from exporter.trainer.jit import jit_choice, jit_failure, jit_model, jit_seconds

# Releases whose speed metrics exclude `jit_compilation_time`; later ones only exclude another key.
_SUBTRACTS = transformers.__version__.startswith("4.")


class JitEvaluation:
    """For Trainer classes of your own: `class MyTrainer(JitEvaluation, Trainer)`.

    Args:
        *args: the Trainer's.
        **kwargs: the Trainer's.
        jit_mode_eval: evaluate and predict through a traced model.
        use_ipex: optimise it with IPEX first.
        jit_strict: raise if tracing fails or the trace is wrong; otherwise the reason is logged once, and eager mode is
            used.

    bf16 is used if the arguments have `bf16` or `bf16_full_eval`.
    """

    def __init__(
        self, *args: Any, jit_mode_eval: bool = False, use_ipex: bool = False, jit_strict: bool = False, **kwargs: Any
    ) -> None:
        found = [value for value in (*args, *kwargs.values()) if isinstance(value, transformers.TrainingArguments)]
        for arguments in found:
            jit_mode_eval |= _taken(arguments, "jit_mode_eval")
            use_ipex |= _taken(arguments, "use_ipex")
        self.jit_mode_eval = jit_mode_eval
        self.use_ipex = use_ipex
        self.jit_strict = jit_strict
        self._evaluated: tuple[tuple[int, Any], torch.nn.Module] | None = None
        # A fingerprint of the weights, computed once per evaluation loop.
        self._contents: Any = None
        self._in_loop = False
        super().__init__(*args, **kwargs)

    @property
    def jit_failure(self) -> str | None:
        """Why evaluation runs in eager mode although jit mode is on; None while it does not."""
        return jit_failure(self._evaluated[1]) if self._evaluated is not None else None

    @property
    def jit_choice(self) -> str | None:
        """What evaluation runs: a backend's name, or `eager` if that was faster or jit mode failed; None at first."""
        return jit_choice(self._evaluated[1]) if self._evaluated is not None else None

    def prediction_step(self, model: torch.nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's step with the traced model."""
        if self.jit_mode_eval:
            model = self._traced(getattr(model, "module", model))
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]  # the Trainer's

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """The Trainer's loop; the metric `jit_compilation_time` is the time for tracing and comparing, in seconds.

        Samples per second exclude it, as in the releases that had jit mode.
        """
        before = self._jit_seconds()
        self._contents, self._in_loop = None, True
        try:
            output = super().evaluation_loop(  # type: ignore[misc]  # the Trainer's
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            self._in_loop = False
        if self.jit_mode_eval:
            seconds = self._jit_seconds() - before
            output.metrics[f"{metric_key_prefix}_jit_compilation_time"] = round(seconds, 4)
            if not _SUBTRACTS:
                prepared = f"{metric_key_prefix}_model_preparation_time"
                output.metrics[prepared] = output.metrics.get(prepared, 0.0) + seconds
        return output

    def _jit_seconds(self) -> float:
        return jit_seconds(self._evaluated[1]) if self._evaluated is not None else 0.0

    def _traced(self, model: torch.nn.Module) -> torch.nn.Module:
        if self._contents is None or not self._in_loop:
            self._contents = _contents(model)
        weights = (id(model), self._contents)
        if self._evaluated is None or self._evaluated[0] != weights:
            arguments: Any = self.args  # type: ignore[attr-defined]  # the Trainer's
            bf16 = bool(arguments.bf16 or arguments.bf16_full_eval)
            # The weights have changed; what is fastest has not.
            like = self._evaluated[1] if self._evaluated is not None and self._evaluated[0][0] == id(model) else None
            traced = jit_model(model, bf16=bf16, use_ipex=self.use_ipex, strict=self.jit_strict, like=like)
            self._evaluated = (weights, traced)
        return self._evaluated[1]


def _contents(model: torch.nn.Module) -> tuple[tuple[float, float], ...]:
    """Sum and norm of each weight. They change with a training step, unlike the version counters of some optimisers."""
    with torch.no_grad():
        return tuple(
            (float(weight.sum(dtype=torch.float64)), float(torch.linalg.vector_norm(weight, dtype=torch.float64)))
            for weight in model.parameters()
        )


def _taken(arguments: transformers.TrainingArguments, name: str) -> bool:
    """A flag that older releases of transformers have, switched off there."""
    flag = bool(getattr(arguments, name, False))
    if flag:
        setattr(arguments, name, False)
    return flag


class JitTrainer(JitEvaluation, transformers.Trainer):  # type: ignore[misc]  # transformers is untyped here
    """transformers' Trainer with jit mode; see `JitEvaluation`."""
