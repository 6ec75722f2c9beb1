"""Linears by operators of this project, with the activation or addition that follows.

In fp32 and bf16 the method `prepare`, called once after loading, packs each weight for these operators, or for oneDNN's
where the operators say that those are faster on this processor. In int8 the weights are codes with a scale per output,
made at export; the inputs become codes with a scale per token at run time, in the layer norm before them if there is
one.

The functions are compiled to TorchScript, which does not know `Tensor | None`.
"""

from __future__ import annotations

from collections import Counter
from typing import Optional

import torch

from exporter.backends.native.norms import NORM
from exporter.backends.onednn.fuse import find_fused
from exporter.backends.onednn.fused_linear import Fused
from exporter.backends.onednn.int8 import quantised_weight
from exporter.backends.onednn.pack import move_weights
from exporter.tracing.graphs.graph import Shapes, constant, take_over
from exporter.tracing.graphs.graph_functions import call
from exporter.tracing.graphs.ir import Graph, Node, Value, graph_of
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

LINEAR, LINEAR_INT8, NORM_INT8 = "em_native::linear", "em_native::linear_int8", "em_native::add_layer_norm_int8"
# Linears of fewer outputs are the heads that give scores: they take no time, and their rounding would be seen.
LEAST_OUTPUTS_INT8 = 32
# More inputs than the operator adds in 32 bits.
_MOST_INPUTS_INT8 = 64 * 1024
# oneDNN's name of an activation → the operators'.
_ACTIVATIONS = {"swish": "silu"}

_PREPARE = """
def prepare(self) -> None:
    for i in range(len(self.weights)):
        weight = self.weights[i]
        if weight.is_mkldnn or weight.dim() != 2:
            pass
        elif {own}torch.ops.em_native.prefers_own_linear(weight):
            self.weights[i] = torch.ops.em_native.pack_linear(weight)
        else:
            self.weights[i] = torch.ops.mkldnn._reorder_linear_weight(weight, None)
"""


# oneDNN's linears take inputs of the weight's type alone.
_OWN_HALVES = "weight.dtype == torch.bfloat16 or "


def place_native_linears(module: ScriptModule, sizes: Shapes, int8: bool, inputs_in_fp32: bool = False) -> Counter[str]:
    """Rewrite every linear whose weight is a constant, and define `prepare`.

    Args:
        module: frozen.
        sizes: of its tensors.
        int8: whether weights become codes.
        inputs_in_fp32: of weights in bf16 too.

    Returns:
        How often each kind of linear was placed.
    """
    graph = graph_of(module)
    found: Counter[str] = Counter()
    placed: list[tuple[Node, int]] = []
    known = dict(sizes)
    codes: dict[str, tuple[Value, Value]] = {}
    for node in list(graph.nodes()):
        if node.kind() != "aten::linear" or constant(node.inputsAt(1)) is None:
            continue
        outputs, inputs = constant(node.inputsAt(1)).shape
        coded = int8 and outputs >= LEAST_OUTPUTS_INT8 and inputs <= _MOST_INPUTS_INT8
        if coded:
            # Before looking for what is added, which may be the output of the same norm.
            _take_codes(graph, node.inputsAt(0), codes, known)
        fused = find_fused(node, known)
        graph.setInsertPoint(fused.last)
        output = _place_int8(module, fused, codes) if coded else _place(module, fused)
        take_over(fused.last.output(), output, known)
        # After the module itself.
        placed.append((output.node(), 3 if coded else 2))
        found[fused.kind + (" in int8" if coded else "")] += 1
    eliminate_dead_code(graph)
    move_weights(module, placed, _PREPARE.format(own=_OWN_HALVES if inputs_in_fp32 else ""))
    return found


def activation_name(name: str, algorithm: str | None) -> str:
    """The operators' name of an activation of oneDNN's; `algorithm` is gelu's."""
    if algorithm == "tanh":
        return "gelu_tanh"
    return _ACTIVATIONS.get(name, name)


def activation_of(fused: Fused) -> str:
    """The operators' name of the activation that follows the linear."""
    return activation_name(fused.activation, fused.algorithm)


def _place(module: ScriptModule, fused: Fused) -> Value:
    graph = graph_of(module)
    value, weight, bias = fused.linear.inputs()
    residual = graph.insertConstant(None) if fused.added is None else fused.added
    names = map(graph.insertConstant, (activation_of(fused), fused.activation, fused.algorithm or ""))
    outputs = graph.insertConstant(len(constant(weight)))
    return call(module, fused.last, native_linear, [value, weight, bias, residual, outputs, *names])


def _place_int8(module: ScriptModule, fused: Fused, codes: dict[str, tuple[Value, Value]]) -> Value:
    graph = graph_of(module)
    value, weight, bias = fused.linear.inputs()
    values, scales = quantised_weight(constant(weight))
    # Codes and their scales, or the value itself and None.
    x, x_scales = codes.get(value.debugName(), (value, graph.insertConstant(None)))
    residual = graph.insertConstant(None) if fused.added is None else fused.added
    numbers = [graph.insertConstant(each) for each in (values, scales)]
    if bias.node().kind() == "prim::Constant" and constant(bias) is not None:
        bias = graph.insertConstant(constant(bias).float())
    rest = map(graph.insertConstant, (len(values), activation_of(fused), False))
    return call(module, fused.last, native_linear_int8, [x, x_scales, *numbers, bias, residual, *rest])


def _take_codes(
    graph: Graph, value: Value, codes: dict[str, tuple[Value, Value]], known: dict[str, tuple[int, ...]]
) -> None:
    """If a norm gives the value, let it give codes and their scales too."""
    norm = value.node()
    if norm.kind() != NORM:
        return
    coded = graph.create(NORM_INT8, list(norm.inputs()), 3)
    coded.insertAfter(norm)
    coded.copyMetadata(norm)
    normed, numbers, scales = coded.outputs()
    if value.debugName() in known:
        known[normed.debugName()] = known[value.debugName()]
    value.replaceAllUsesWith(normed)
    codes[normed.debugName()] = (numbers, scales)


def native_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Optional[torch.Tensor],  # noqa: UP045
    residual: Optional[torch.Tensor],  # noqa: UP045
    outputs: int,
    activation: str,
    onednn_activation: str,
    onednn_algorithm: str,
) -> torch.Tensor:
    """The linear of which `prepare` packed the weight, with the activation or the addition.

    Args:
        x: [..., inputs].
        weight: [outputs, inputs], or packed.
        bias: [outputs], or None.
        residual: added to the output, of its shape, or None.
        outputs: their number.
        activation: as the operators call it.
        onednn_activation: as oneDNN calls it.
        onednn_algorithm: which gelu, for oneDNN.
    """
    if not weight.is_mkldnn:
        found: torch.Tensor = torch.ops.em_native.linear(x, weight, bias, residual, outputs, activation)
        return found
    if residual is not None:
        added: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, residual, weight, bias, "add")
        return added
    other: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, onednn_activation, [], onednn_algorithm)
    return other


def native_linear_int8(
    x: torch.Tensor,
    x_scales: Optional[torch.Tensor],  # noqa: UP045
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: Optional[torch.Tensor],  # noqa: UP045
    residual: Optional[torch.Tensor],  # noqa: UP045
    outputs: int,
    activation: str,
    half: bool,
) -> torch.Tensor:
    """The linear on codes; arguments as for the operator: `half` asks for bf16, otherwise the output is fp32."""
    found: torch.Tensor = torch.ops.em_native.linear_int8(
        x, x_scales, weight, weight_scales, bias, residual, outputs, activation, half
    )
    return found
