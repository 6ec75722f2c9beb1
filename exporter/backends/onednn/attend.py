"""Replace explicit attention by the form that measures fastest for the sizes of a call.

Only exactly `softmax(query @ keys * scale + mask) @ values` is replaced. Which form is fastest depends on the precision
and the number of scores (benchmarks/experiments/attention.py, docs/decisions/onednn.md):
- fp32, or few scores: PyTorch's own operator, a single call;
- as many as fit into a processor's cache: two batched products, with the mask added in place;
- more: the same for each row of the batch, so that they fit.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import torch

from exporter.tracing.graphs.graph import BFLOAT16, FLOAT32, Shapes, constant
from exporter.tracing.graphs.graph_functions import call
from exporter.tracing.graphs.ir import Node, Value, graph_of
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

# Numbers of scores: rows x heads x queries x keys.
FEW = 32 * 1024
MANY_BYTES = 2 * 1024 * 1024
_TYPES = (FLOAT32, BFLOAT16)


class Attention(NamedTuple):
    """One attention in a graph: `keys` are transposed, `mask` is added to the scores, or None."""

    query: Value
    keys: Value
    values: Value
    mask: Value | None
    scale: float
    # The nodes between the inputs and the output, which nothing else reads.
    inner: tuple[Node, ...]
    # Of a query or of a value, whichever is wider.
    width: int


def place_attention(module: ScriptModule, sizes: Shapes) -> int:
    """Replace explicit attention in the module's graph.

    Returns:
        The number of attentions.
    """
    graph = graph_of(module)
    found = [(node, parts) for node in graph.nodes() if (parts := attention(node, sizes)) is not None]
    for node, (query, keys, values, mask, scale, *_) in found:
        graph.setInsertPoint(node)
        row_mask = graph.insertConstant(None) if mask is None else mask
        numbers = map(graph.insertConstant, (scale, FEW, MANY_BYTES))
        output = call(module, node, attend, [query, keys, values, row_mask, *numbers])
        node.output().replaceAllUsesWith(output)
    eliminate_dead_code(graph)
    return len(found)


def attention(node: Node, sizes: Shapes) -> Attention | None:
    """The attention whose last product the node is, or None."""
    if node.kind() != "aten::matmul" or len(sizes.get(node.output().debugName(), ())) != 4:
        return None
    weights, values = node.inputs()
    inner: list[Node] = []
    weights = _unconverted(weights, inner)
    softmax = weights.node()
    if softmax.kind() != "aten::softmax" or constant(softmax.inputsAt(1)) not in (-1, 3) or not _once(weights):
        return None
    # No dtype, or float32: sums are in float32 in any case.
    if constant(softmax.inputsAt(2)) not in (None, FLOAT32) or softmax.inputsAt(2).node().kind() != "prim::Constant":
        return None
    inner.append(softmax)
    scores, mask = _unconverted(softmax.inputsAt(0), inner), None
    if scores.node().kind() == "aten::add":
        masked = scores
        scores, mask, factor = masked.node().inputs()
        shape = sizes.get(scores.debugName())
        same = shape is not None and shape == sizes.get(masked.debugName())
        if not same or len(sizes.get(mask.debugName(), ())) != 4 or constant(factor) != 1 or not _once(masked):
            return None
        inner.append(masked.node())
    scale = 1.0
    if scores.node().kind() in ("aten::mul", "aten::div"):
        number = constant(scores.node().inputsAt(1))
        if not isinstance(number, (int, float)) or number <= 0 or not _once(scores):
            return None
        scale = float(number) if scores.node().kind() == "aten::mul" else 1 / number
        inner.append(scores.node())
        scores = scores.node().inputsAt(0)
    product = scores.node()
    if product.kind() != "aten::matmul" or not _once(scores):
        return None
    query, keys = product.inputs()
    shapes = [sizes.get(value.debugName(), ()) for value in (query, keys, values)]
    # All three have the same rows and heads, without broadcasting.
    if any(len(shape) != 4 or shape[:2] != shapes[0][:2] for shape in shapes):
        return None
    return Attention(query, keys, values, mask, scale, (*inner, product), max(shapes[0][3], shapes[2][3]))


def _unconverted(value: Value, inner: list[Node]) -> Value:
    """The value before conversions to float32 or bfloat16, whose nodes are added to `inner`."""
    while value.node().kind() == "aten::to" and constant(value.node().inputsAt(1)) in _TYPES and _once(value):
        inner.append(value.node())
        value = value.node().inputsAt(0)
    return value


def _once(value: Value) -> bool:
    return len(value.uses()) == 1


# The functions below are compiled to TorchScript, which does not know `Tensor | None`.


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: float,
    few: int,
    many_bytes: int,
) -> torch.Tensor:
    """Attention, [rows, heads, queries, width].

    Args:
        query: [rows, heads, queries, width].
        keys: [rows, heads, width, keys].
        values: [rows, heads, keys, width].
        mask: added to the scores, [rows or 1, heads or 1, queries or 1, keys], or None.
        scale: the factor of the scores.
        few: up to this many scores, and in fp32, PyTorch's own operator is called.
        many_bytes: up to this many bytes of scores, all rows are computed at once.
    """
    rows = query.size(0)
    scores = rows * query.size(1) * query.size(2) * keys.size(3)
    if (scores <= few or query.dtype == torch.float32) and (mask is None or mask.dtype == query.dtype):
        return sdpa(query, keys, values, mask, scale)
    if rows == 1 or scores * query.element_size() <= many_bytes:
        return explicit_attention(query, keys, values, mask, scale)
    return attend_by_row(query, keys, values, mask, scale)


def sdpa(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: float,
) -> torch.Tensor:
    """PyTorch's own operator; arguments as for `attend`."""
    return torch.nn.functional.scaled_dot_product_attention(
        query, keys.transpose(2, 3), values, mask, 0.0, False, scale=scale
    )


def explicit_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: float,
) -> torch.Tensor:
    """Two products for all rows; arguments as for `attend`."""
    if scale != 1.0:
        query = query * scale
    scores = torch.matmul(query, keys)
    if mask is not None:
        # The result is used: if IPEX's library is loaded, an addition whose result is not used is dropped.
        scores = scores.add_(mask)
    return torch.matmul(torch.softmax(scores, -1), values)


def attend_by_row(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: float,
) -> torch.Tensor:
    """Two products for each row of the batch; arguments as for `attend`."""
    # In the memory layout that the next linear reads, heads beside each other. Zeros, because no file may call an
    # operator that gives uninitialised memory.
    output = torch.zeros(
        [query.size(0), query.size(2), query.size(1), values.size(3)], dtype=values.dtype, device=values.device
    ).transpose(1, 2)
    for row in range(query.size(0)):
        row_mask = mask
        if mask is not None and mask.size(0) != 1:
            row_mask = mask[row : row + 1]
        row_output = explicit_attention(
            query[row : row + 1], keys[row : row + 1], values[row : row + 1], row_mask, scale
        )
        output[row : row + 1].copy_(row_output)
    return output
