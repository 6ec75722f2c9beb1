"""PyTorch's own oneDNN operators, placed in the graph.

In: a module; then its frozen trace. Out: the trace with joined and fused linears, and a method `prepare`. Refuses
(BackendError) a model without a linear that could use them.

No package beside torch: the file loads in stock PyTorch and libtorch. Inductor, PyTorch's compiler, emits the same
operators for processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from exporter.backends.onednn.attention import simplify_attention
from exporter.backends.onednn.fuse import LINEAR, fuse_linears
from exporter.backends.onednn.join import join_linears
from exporter.backends.onednn.pack import pack
from exporter.backends.plain import BF16_FLAGS
from exporter.graphs import shapes
from exporter.inputs import ExampleInputs
from runtime.environment import Environment
from runtime.errors import BackendError
from runtime.manifest import Backend, Fusion, Precision, Requirements
from runtime.torchscript import ScriptModule


class OnednnBackend:
    """Joined and fused linears by oneDNN; no package beside torch."""

    name: Backend = "onednn"
    kernels = "oneDNN's linears with weights reordered after loading"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """This torch or a newer one."""
        return Requirements(str(environment.torch), "at-least-minor", None, BF16_FLAGS if precision == "bf16" else ())

    def optimise(self, module: torch.nn.Module, precision: Precision) -> torch.nn.Module:
        """bf16 converts the weights; the rest is done on the graph."""
        return module.to(torch.bfloat16) if precision == "bf16" else module

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """None: the weights carry the precision."""
        return nullcontext()

    def rewrite(self, module: ScriptModule, example: ExampleInputs) -> str:
        """Join, fuse, and move the weights to where `prepare` reorders them.

        Raises:
            BackendError: the graph has no linear with weights of its own.
        """
        simplified = simplify_attention(module.graph)
        joined = join_linears(module.graph)
        fused = fuse_linears(module.graph, shapes(module, example))
        if not fused:
            raise BackendError(
                "no linear for oneDNN in the model", "at least one with constant weights", "use --backend plain"
            )
        pack(module)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(fused.items()))
        return f"{joined} linears joined, {simplified} attentions simplified; placed {kinds}"

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """Linears of oneDNN in the executed graph, by what they join."""
        return tuple(
            Fusion("prepacked linear" if what == "none" else f"linear+{what}", LINEAR, count)
            for name, count in sorted(operators.items())
            for kind, _, what in [name.rstrip("]").partition("[")]
            if kind == LINEAR
        )
