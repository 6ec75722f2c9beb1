"""Place linears in int8: inputs as codes of 8 bits, weights with one scale per row, sums in 32 bits.

These are the linears whose input is quantised and dequantised again, as `exporter/backends/onednn/quantise.py` marks
them. If the output of a linear goes only through an activation into the quantisation of another one, it is given as
codes; all other outputs are fp32.
"""

from __future__ import annotations

import torch

from exporter.backends.onednn.fused_linear import Fused
from exporter.tracing.graphs.graph import FLOAT32, UINT8, constant, insert, no_scalars
from exporter.tracing.graphs.ir import Graph, Node, Value

LINEAR = "onednn::qlinear_pointwise"
QUANTISE, DEQUANTISE = "aten::quantize_per_tensor", "aten::dequantize"
# Codes of weights are symmetric; codes of inputs are 0 to 255 around a zero point.
_WEIGHT_CODES = 127


def takes_codes(linear: Node) -> bool:
    """Whether a linear's input was quantised."""
    source = linear.inputsAt(0).node()
    kinds: list[str] = [source.kind(), source.inputsAt(0).node().kind()] if source.inputsSize() else []
    return kinds == [DEQUANTISE, QUANTISE]


class Codes:
    """Quantised values as tensors of codes, each computed once for all its readers."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Value] = {}

    def place(self, fused: Fused) -> Value:
        """Insert the linear on codes; its output is fp32, or codes if only another linear's quantisation reads it."""
        graph, last = self._graph, fused.last
        dequantise, weight, bias = fused.linear.inputs()
        quantise = dequantise.node().inputsAt(0).node()
        codes = self._of(quantise)
        graph.setInsertPoint(last)
        values, scales = quantised_weight(constant(weight))
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        scale, zero = quantise.inputsAt(1), quantise.inputsAt(2)
        takes = [codes, scale, zero, *map(graph.insertConstant, (values, scales, zeros))]
        reader = _quantising_reader(last) if fused.added is None else None
        if reader is not None:
            gives = [reader.inputsAt(1), reader.inputsAt(2), graph.insertConstant(UINT8)]
        else:
            gives = list(map(graph.insertConstant, (1.0, 0, FLOAT32)))
        if fused.added is not None:
            how = [*map(graph.insertConstant, (1.0, 0, "add", 1.0, "none")), no_scalars(graph, last)]
            # Contiguous: for a view, such as the one token that a head reads, oneDNN uses its reference implementation,
            # which is a thousand times slower.
            added = insert(graph, last, "aten::contiguous", [fused.added, graph.insertConstant(0)], fused.linear)
            arguments = [*takes, added, bias, *gives, *how, graph.insertConstant("none")]
        else:
            how = [graph.insertConstant(fused.activation), no_scalars(graph, last)]
            arguments = [*takes, bias, *gives, *how, graph.insertConstant(fused.algorithm or "none")]
        output = insert(graph, last, LINEAR, arguments, fused.linear)
        if reader is not None:
            self._known[reader.output().debugName()] = output
        return output

    def _of(self, quantise: Node) -> Value:
        name = quantise.output().debugName()
        if name not in self._known:
            after = self._graph.create("aten::int_repr", [quantise.output()], 1)
            after.insertAfter(quantise)
            self._known[name] = after.output()
        return self._known[name]


def _quantising_reader(last: Node) -> Node | None:
    uses = last.output().uses()
    reader = uses[0].user if len(uses) == 1 else None
    if reader is None or reader.kind() != QUANTISE:
        return None
    # All readers of the codes must take them as codes.
    readers = [use.user for use in reader.output().uses()]
    whole = all(
        one.kind() == DEQUANTISE and all(use.user.kind() == "aten::linear" for use in one.output().uses())
        for one in readers
    )
    return reader if whole else None


def quantised_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes in int8 and one scale per row, for a weight [out, in]."""
    scales = weight.float().abs().amax(dim=1) / _WEIGHT_CODES
    # A row of zeros may have any scale but 0.
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    codes = (weight.float() / scales[:, None]).round().clamp(-_WEIGHT_CODES, _WEIGHT_CODES)
    return codes.to(torch.int8), scales
