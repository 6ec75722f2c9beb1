"""PyTorch's own oneDNN operators, placed in the graph. Needs no package besides torch.

The file loads in stock PyTorch and libtorch. Inductor, PyTorch's compiler, uses the same operators on processors. A
model without a linear that could use them is refused (BackendError).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from exporter.backends.bf16 import to_bf16
from exporter.backends.onednn import int8
from exporter.backends.onednn.attend import place_attention
from exporter.backends.onednn.attention import simplify_attention
from exporter.backends.onednn.fuse import LINEAR, fuse_linears
from exporter.backends.onednn.join import join_linears
from exporter.backends.onednn.pack import pack
from exporter.backends.onednn.padding import PlaceAttention, leave_out_padding, place_ragged
from exporter.backends.onednn.quantise import quantise_linears
from exporter.backends.plain import BF16_FLAGS, INT8_FLAGS
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import Shapes, shapes
from exporter.tracing.graphs.ir import graph_of
from runtime.errors import BackendError
from runtime.format.manifest import Backend, Fusion, Precision, Requirements
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule, merge_equal_nodes


class OnednnBackend:
    """Joined and fused linears by oneDNN."""

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
        return to_bf16(module) if precision == "bf16" else module

    def quantise(
        self,
        module: torch.nn.Module,
        samples: Sequence[Mapping[str, torch.Tensor]],
        example: ExampleInputs,
        progress: Callable[[int], None],
    ) -> tuple[torch.nn.Module, str]:
        """Static int8 for the linears that the samples reach; the rest stays in fp32.

        Raises:
            BackendError: they reach none.
        """
        count = quantise_linears(module, samples, progress)
        return module, f"{count} linears in int8, the rest in fp32"

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """None needed: the weights have the precision."""
        return nullcontext()

    def drop_padding(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> tuple[int, list[str]]:
        """Between the embeddings and the head, compute real tokens only."""
        notes = simplify(module)
        mask = list(graph_of(module).inputs())[1 + list(example.tensors).index("attention_mask")]
        dropped = leave_out_padding(module, mask, shapes(module, example), self.ragged_attention(precision))
        # Several views ask for the size of the same tensor.
        merge_equal_nodes(graph_of(module))
        return dropped, [
            *notes,
            *([f"{dropped} attentions, and all between them, on real tokens only"] if dropped else []),
        ]

    def ragged_attention(self, precision: Precision) -> PlaceAttention:
        """How attention over rows that follow each other is placed."""
        return place_ragged

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """Join, fuse, and move the weights to where `prepare` reorders them.

        Raises:
            BackendError: the graph has no linear with weights of its own.
        """
        notes = simplify(module)
        sizes = shapes(module, example)
        placed = self.place(module, sizes, precision)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(placed.items()) if count)
        return "; ".join([*notes, f"placed {kinds}"])

    def place(self, module: ScriptModule, sizes: Shapes, precision: Precision) -> Counter[str]:
        """Replace operators of the graph and define `prepare`; how often each kind of them was placed.

        Raises:
            BackendError: the graph has no linear with weights of its own.
        """
        placed = fuse_linears(graph_of(module), sizes)
        if not placed:
            raise BackendError("no linear for oneDNN in the model", "at least one with constant weights")
        # After the linears: it changes the names by which the sizes are known.
        placed["attention"] = place_attention(module, sizes)
        pack(module)
        return placed

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """Linears of oneDNN in the executed graph, by what they fuse."""
        return tuple(
            Fusion(("prepacked linear" if what == "none" else f"linear+{what}") + width, kind, count)
            for name, count in sorted(operators.items())
            for kind, _, what in [name.rstrip("]").partition("[")]
            for placed, width in ((LINEAR, ""), (int8.LINEAR, " in int8"))
            if kind == placed
        )


def simplify(module: ScriptModule) -> list[str]:
    """The first steps of both rewritings; returns what was done, for people."""
    merge_equal_nodes(graph_of(module))
    simplified, joined = simplify_attention(graph_of(module)), join_linears(graph_of(module))
    counts = ((joined, "linears joined"), (simplified, "attentions simplified"))
    return [f"{count} {what}" for count, what in counts if count]
