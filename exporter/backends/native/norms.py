"""Layer norm and RMS norm, with the addition in front of it, by one operator of this project.

PyTorch has an operator for layer norm. transformers writes RMS norm as several: conversion to float32, square, mean,
root, product, conversion back, and the product with the weight, in one of several orders.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from exporter.tracing.graphs.graph import Shapes, constant, insert
from exporter.tracing.graphs.ir import Graph, Node, Value
from runtime.host.torchscript import eliminate_dead_code

NORM = "em_native::add_layer_norm"
RMS_NORM, ADD_RMS_NORM = "em_native::rms_norm", "em_native::add_rms_norm"
# Conversions to another type of floats.
_CONVERSIONS = ("aten::to", "aten::type_as")


def place_native_norms(graph: Graph, sizes: dict[str, tuple[int, ...]]) -> int:
    """Replace every layer norm and RMS norm over the last axis; returns their number.

    The sizes of what the norms give are added to `sizes`: the next addition is of one of these.
    """
    found = 0
    for node in list(graph.nodes()):
        if node.kind() == "aten::layer_norm":
            found += _place_layer_norm(graph, node, sizes)
        elif node.kind() == "aten::rsqrt" and (parts := _rms_norm(node, sizes)) is not None:
            _place_rms_norm(graph, parts, sizes)
            found += 1
    eliminate_dead_code(graph)
    return found


def _place_layer_norm(graph: Graph, node: Node, sizes: dict[str, tuple[int, ...]]) -> bool:
    value, size, weight, bias, epsilon, _ = node.inputs()
    number = constant(epsilon)
    if len(constant(size) or ()) != 1 or not isinstance(number, float):
        return False
    shape = sizes.get(value.debugName())
    value, residual = _summands(value, sizes)
    graph.setInsertPoint(node)
    added = graph.insertConstant(None) if residual is None else residual
    output = insert(graph, node, NORM, [value, added, weight, bias, epsilon], node)
    if shape is not None:
        sizes[output.debugName()] = shape
    node.output().replaceAllUsesWith(output)
    return True


def _summands(value: Value, sizes: Shapes) -> tuple[Value, Value | None]:
    """The two tensors whose sum the value is, if nothing else reads it and both have its shape."""
    if len(value.uses()) != 1 or (both := _sum(value, sizes)) is None:
        return value, None
    return both


def _sum(value: Value, sizes: Shapes) -> tuple[Value, Value] | None:
    """The two tensors whose sum the value is, if both have its shape."""
    node: Node = value.node()
    if node.kind() != "aten::add" or constant(node.inputsAt(2)) != 1:
        return None
    one, other = node.inputsAt(0), node.inputsAt(1)
    shapes = [sizes.get(each.debugName()) for each in (one, other, value)]
    return (one, other) if shapes[0] is not None and len(set(shapes)) == 1 else None


class _RmsNorm(NamedTuple):
    """An RMS norm: of which value, its weight or None, what is added to the mean, and its last node."""

    value: Value
    weight: Value | None
    epsilon: float
    last: Node


def _rms_norm(root: Node, sizes: Shapes) -> _RmsNorm | None:
    """The norm whose reciprocal root the node is: `x * rsqrt(mean(x ** 2) + epsilon)`, then often `* weight`."""
    total = root.inputsAt(0).node()
    if total.kind() != "aten::add" or (epsilon := _number(total.inputsAt(1))) is None:
        return None
    mean = total.inputsAt(0).node()
    if mean.kind() != "aten::mean" or mean.inputsSize() != 4 or constant(total.inputsAt(2)) != 1:
        return None
    square = mean.inputsAt(0).node()
    axes, kept = constant(mean.inputsAt(1)), constant(mean.inputsAt(2))
    if square.kind() != "aten::pow" or constant(square.inputsAt(1)) != 2 or axes != [-1] or kept is not True:
        return None
    value = _unconverted(square.inputsAt(0))
    if any(len(each.output().uses()) != 1 for each in (root, total, mean, square)):
        return None
    product = root.output().uses()[0].user
    if product.kind() != "aten::mul":
        return None
    factors = [_unconverted(each).debugName() for each in (product.inputsAt(0), product.inputsAt(1))]
    shape = sizes.get(value.debugName())
    if not shape or value.debugName() not in factors or factors[0] == factors[1]:
        return None
    return _with_weight(value, epsilon, product, shape[-1:], sizes)


def _with_weight(value: Value, epsilon: float, product: Node, size: tuple[int, ...], sizes: Shapes) -> _RmsNorm:
    """Follow the normalised value through conversions and a product with one constant per feature."""
    last, weight = product, None
    while len(last.output().uses()) == 1:
        reader = last.output().uses()[0].user
        if reader.kind() in _CONVERSIONS and reader.inputsAt(0).debugName() == last.output().debugName():
            last = reader
            continue
        if reader.kind() != "aten::mul" or weight is not None:
            break
        both = [reader.inputsAt(0), reader.inputsAt(1)]
        other = both[1] if both[0].debugName() == last.output().debugName() else both[0]
        if constant(other) is None or sizes.get(other.debugName()) != size:
            break
        last, weight = reader, other
    return _RmsNorm(value, weight, epsilon, last)


def _number(value: Value) -> float | None:
    """A constant number; the tracer writes those of Python as tensors without axes."""
    found = constant(value)
    if isinstance(found, torch.Tensor):
        return float(found) if found.dim() == 0 else None
    return found if isinstance(found, float) else None


def _unconverted(value: Value) -> Value:
    while value.node().kind() in _CONVERSIONS:
        value = value.node().inputsAt(0)
    return value


def _place_rms_norm(graph: Graph, norm: _RmsNorm, sizes: dict[str, tuple[int, ...]]) -> None:
    last, both = norm.last, _sum(norm.value, sizes)
    joint = both is not None and not any(map(_by_a_linear, both))
    before = norm.value.node() if joint else last
    graph.setInsertPoint(before)
    # New constants, for those of the norm may stand behind the addition.
    numbers = map(graph.insertConstant, (None if norm.weight is None else constant(norm.weight), norm.epsilon))
    if both is None or not joint:
        normed = insert(graph, before, RMS_NORM, [norm.value, *numbers], last)
    else:
        # The sum is read again behind the norm: it comes from the operator too.
        node = graph.create(ADD_RMS_NORM, [*both, *numbers], 2)
        node.insertBefore(before)
        node.copyMetadata(last)
        normed, total = node.outputs()
        sizes[total.debugName()] = sizes[norm.value.debugName()]
        norm.value.replaceAllUsesWith(total)
    sizes[normed.debugName()] = sizes[norm.value.debugName()]
    last.output().replaceAllUsesWith(normed)


def _by_a_linear(value: Value) -> bool:
    """Whether the value is that of a linear which adds what is added to it in its own pass."""
    node = value.node()
    return node.kind() == "aten::linear" and len(value.uses()) == 1 and constant(node.inputsAt(1)) is not None
