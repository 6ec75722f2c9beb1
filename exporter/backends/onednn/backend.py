"""PyTorch's own oneDNN operators, placed in the graph.

In: a module; then its frozen trace. Out: the trace with joined and fused linears, and a method `prepare`. Refuses
(BackendError) a model without a linear that could use them.

No package beside torch: the file loads in stock PyTorch and libtorch. Inductor, PyTorch's compiler, emits the same
operators for processors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from exporter.backends.onednn import int8
from exporter.backends.onednn.attend import place_attention
from exporter.backends.onednn.attention import simplify_attention
from exporter.backends.onednn.fuse import LINEAR, fuse_linears
from exporter.backends.onednn.join import join_linears
from exporter.backends.onednn.pack import pack
from exporter.backends.onednn.padding import leave_out_padding
from exporter.backends.onednn.quantise import quantise_linears
from exporter.backends.plain import BF16_FLAGS, INT8_FLAGS
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import shapes
from runtime.errors import BackendError
from runtime.format.manifest import Backend, Fusion, Precision, Requirements
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule, merge_equal_nodes


class OnednnBackend:
    """Joined and fused linears by oneDNN; no package beside torch."""

    name: Backend = "onednn"
    kernels = "oneDNN's linears with weights reordered after loading"
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
    optimised_at_run = False

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """This torch or a newer one."""
        flags = {"fp32": (), "bf16": BF16_FLAGS, "int8": INT8_FLAGS}[precision]
        return Requirements(str(environment.torch), "at-least-minor", None, flags)

    def optimise(self, module: torch.nn.Module, precision: Precision) -> torch.nn.Module:
        """bf16 converts the weights; the rest is done on the graph."""
        return module.to(torch.bfloat16) if precision == "bf16" else module

    def quantise(
        self,
        module: torch.nn.Module,
        samples: Sequence[Mapping[str, torch.Tensor]],
        example: ExampleInputs,
        progress: Callable[[int], None],
    ) -> tuple[torch.nn.Module, str]:
        """Static int8 for the linears that the samples reach; the rest stays fp32.

        Raises:
            BackendError: they reach none.
        """
        count = quantise_linears(module, samples, progress)
        return module, f"{count} linears in int8, the rest in fp32"

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """None: the weights carry the precision."""
        return nullcontext()

    def drop_padding(self, module: ScriptModule, example: ExampleInputs) -> tuple[int, list[str]]:
        """Between the embeddings and the head, work on real tokens alone."""
        said = _joined(module)
        mask = list(module.graph.inputs())[1 + list(example.tensors).index("attention_mask")]
        dropped = leave_out_padding(module, mask, shapes(module, example))
        # Sizes of one tensor that several views ask for.
        merge_equal_nodes(module.graph)
        return dropped, [
            *said,
            *([f"{dropped} attentions, and all between them, on real tokens alone"] if dropped else []),
        ]

    def rewrite(self, module: ScriptModule, example: ExampleInputs) -> str:
        """Join, fuse, and move the weights to where `prepare` reorders them.

        Raises:
            BackendError: the graph has no linear with weights of its own.
        """
        said = _joined(module)
        sizes = shapes(module, example)
        placed = fuse_linears(module.graph, sizes)
        if not placed:
            raise BackendError("no linear for oneDNN in the model", "at least one with constant weights")
        # Last: it changes names, which the sizes go by.
        placed["attention"] = place_attention(module, sizes)
        pack(module)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(placed.items()) if count)
        return "; ".join([*said, f"placed {kinds}"])

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """Linears of oneDNN in the executed graph, by what they join."""
        return tuple(
            Fusion(("prepacked linear" if what == "none" else f"linear+{what}") + width, kind, count)
            for name, count in sorted(operators.items())
            for kind, _, what in [name.rstrip("]").partition("[")]
            for placed, width in ((LINEAR, ""), (int8.LINEAR, " in int8"))
            if kind == placed
        )


def _joined(module: ScriptModule) -> list[str]:
    """What both rewritings begin with; what was done, in words."""
    merge_equal_nodes(module.graph)
    simplified, joined = simplify_attention(module.graph), join_linears(module.graph)
    counts = ((joined, "linears joined"), (simplified, "attentions simplified"))
    return [f"{count} {what}" for count, what in counts if count]
