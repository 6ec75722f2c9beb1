"""Weights and caches of bf16 for models that generate text: what goes from layer to layer stays in fp32.

A single token reads every weight once, so weights of half the size are half the time. What lies between the layers
takes no time, and a decoder does not bear its rounding (docs/decisions/generation.md). On processors with products of
bf16 pairs a linear rounds its inputs while it copies them; attention of many queries rounds them as the cache is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from exporter.backends.native.backend import NativeBackend
from exporter.backends.native.coded import linears_of_products, weights_to_round
from exporter.backends.native.linears import place_native_linears
from exporter.loading.weight_codes import Codes
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import FLOAT32, Shapes, constant, insert, take_over
from exporter.tracing.graphs.ir import Graph, graph_of
from runtime.errors import BackendError
from runtime.format.manifest import Precision
from runtime.host.torchscript import ScriptModule, eliminate_dead_code


class HalfWeightsBackend(NativeBackend):
    """The backend `native` with weights and caches of bf16, and sums in fp32."""

    kernels = "this project's attention, norms and linears, with weights and caches of bf16 and sums of fp32"
    precisions: tuple[Precision, ...] = ("bf16",)

    def optimise(self, module: torch.nn.Module, precision: Precision) -> torch.nn.Module:
        """The module as it is: `round_weights` has rounded its weights."""
        return module

    def round_weights(self, model: Any, precision: Precision, given: Sequence[Codes] = ()) -> str:
        """Round weights of linears, and the table of token embeddings, to bf16, in place; what was done, for people.

        Raises:
            BackendError: there is no linear to round.
        """
        count = 0
        with torch.no_grad():
            for weight, _ in weights_to_round(model):
                weight.copy_(weight.bfloat16())
                count += weight.numel()
        if not count:
            raise BackendError("no linear for bf16 in the model", "at least one")
        total = sum(one.numel() for one in model.parameters())
        return f"weights rounded: {100 * count / total:.0f} % in bf16 of {total / 1e6:.1f} million"

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """As for native; products with a transposed weight (GPT-2's) become linears first."""
        linears_of_products(graph_of(module))
        return super().rewrite(module, example, precision)

    def place_linears(self, module: ScriptModule, sizes: Shapes, precision: Precision) -> Counter[str]:
        """Linears and tables whose numbers are those of bf16; other linears as for fp32."""
        graph = graph_of(module)
        known = dict(sizes)
        tables = _halve_weights(graph, known)
        placed = place_native_linears(module, known, int8=False, inputs_in_fp32=True)
        if tables:
            placed["embeddings in bf16"] = tables
        return placed


def _halve_weights(graph: Graph, sizes: dict[str, tuple[int, ...]]) -> int:
    """Put weights of bf16 in the places of those that are exactly such numbers; returns the number of tables.

    The sizes of what the tables give are added to `sizes`: the first linear that adds to it looks for them.
    """
    halves: dict[str, torch.Tensor | None] = {}
    tables = 0
    for node in list(graph.nodes()):
        place = {"aten::linear": 1, "aten::embedding": 0}.get(node.kind())
        if place is None:
            continue
        weight, name = constant(node.inputsAt(place)), node.inputsAt(place).debugName()
        if not isinstance(weight, torch.Tensor) or weight.dtype != torch.float32 or weight.dim() != 2:
            continue
        if name not in halves:
            rounded = weight.bfloat16()
            halves[name] = rounded if torch.equal(rounded.float(), weight) else None
        half = halves[name]
        if half is None:
            continue
        graph.setInsertPoint(node)
        value = graph.insertConstant(half)
        if place == 1:
            node.replaceInput(1, value)
            continue
        tables += 1
        rows = insert(graph, node, "aten::embedding", [value, *list(node.inputs())[1:]], node)
        rest = map(graph.insertConstant, (FLOAT32, False, False, None))
        output = insert(graph, node, "aten::to", [rows, *rest], node)
        take_over(node.output(), output, sizes)
    eliminate_dead_code(graph)
    return tables
