"""Weights of codes for models that generate text: int8 with a scale per output, int4 with scales and zeros per group.

A single token reads every weight once, so its time is that of reading them from memory. Only weights are rounded, and
inputs and sums stay in fp32. The codes are in the file as the operators read them (`em_native::linear_codes`), the same
on every processor, so nothing is packed after loading, and the head shares one copy with the table of embeddings where
the model does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from exporter.backends.native.backend import NativeBackend
from exporter.backends.native.linears import activation_of, place_native_linears
from exporter.backends.native.weight_codes import CodeBook, packed, round_to_4_bits, round_to_8_bits
from exporter.backends.onednn.fuse import find_fused
from exporter.loading.weight_codes import Codes
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import Shapes, constant, insert, take_over
from exporter.tracing.graphs.ir import Graph, Node, Value, graph_of
from runtime.errors import BackendError
from runtime.format.manifest import Fusion, Precision
from runtime.host.torchscript import ScriptModule, eliminate_dead_code

# Linears of fewer outputs choose among experts: they take no time, and their rounding would be seen.
_LEAST_OUTPUTS = 16
LINEAR_CODES, EMBED_CODES = "em_native::linear_codes", "em_native::embed_codes"


class CodedBackend(NativeBackend):
    """The backend `native` with weights of codes.

    Args:
        group: inputs per group of int4.
    """

    kernels = "this project's attention, norms and linears, with weights of codes that are widened where they are used"
    precisions: tuple[Precision, ...] = ("int8", "int4")

    def __init__(self, group: int) -> None:
        self._group = group
        self._book = CodeBook()

    def round_weights(self, model: Any, precision: Precision, given: Sequence[Codes] = ()) -> str:
        """Replace weights of linears, and the table of token embeddings, by what their codes stand for, in place.

        The table and the head are in int8 in both precisions. Weights of 4 bits that have codes already, those `given`,
        keep them in int4. Returns what was done, for people.

        Raises:
            BackendError: there is no linear to round.
        """
        self._book = CodeBook()
        for known in given if precision == "int4" else ():
            self._book.add(known)
        kinds: Counter[int] = Counter()
        kept = 0
        total = sum(one.numel() for one in model.parameters())
        with torch.no_grad():
            for weight, end in weights_to_round(model):
                if len(weight) < _LEAST_OUTPUTS:
                    continue
                four = precision == "int4" and not end
                codes = self._book.find(weight.contiguous()) if given else None
                if codes is None:
                    codes = round_to_4_bits(weight, self._group) if four else round_to_8_bits(weight)
                    weight.copy_(self._book.add(codes))
                else:
                    kept += 1
                kinds[codes.bits] += weight.numel()
        if not kinds:
            raise BackendError(f"no linear for {precision} in the model", "at least one")
        shares = ", ".join(f"{100 * count / total:.0f} % in int{bits}" for bits, count in sorted(kinds.items()))
        groups = f", groups of {self._group} inputs" if kinds[4] and not kept else ""
        taken = f", {kept} linears with the checkpoint's own codes" if kept else ""
        return f"weights rounded: {shares} of {total / 1e6:.1f} million{groups}{taken}"

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """As for native; products with a transposed weight (GPT-2's) become linears first."""
        linears_of_products(graph_of(module))
        return super().rewrite(module, example, precision)

    def may_join(self, weights: Sequence[torch.Tensor]) -> bool:
        """Not if codes are known for a part and not for the whole, as with parts of 8 and of 4 bits."""
        known = any(self._book.find(weight) is not None for weight in weights)
        return not known or self._book.find(torch.cat(list(weights))) is not None

    def place_linears(self, module: ScriptModule, sizes: Shapes, precision: Precision) -> Counter[str]:
        """Linears of known codes, and tables of embeddings; other linears as for fp32.

        Raises:
            BackendError: there is no linear of known codes.
        """
        graph = graph_of(module)
        found: Counter[str] = Counter()
        known = dict(sizes)
        placed = _Placed(graph, self._book)
        for node in list(graph.nodes()):
            if node.kind() == "aten::linear" and (parts := placed.codes(node.inputsAt(1))) is not None:
                found[_place_linear(graph, node, parts, known)] += 1
            elif node.kind() == "aten::embedding" and (parts := placed.codes(node.inputsAt(0))) is not None:
                graph.setInsertPoint(node)
                output = insert(graph, node, EMBED_CODES, [node.inputsAt(1), *parts.values[:2]], node)
                take_over(node.output(), output, known)
                found["embeddings in int8"] += 1
        if not found:
            raise BackendError(f"no linear for {precision} in the traced model", "at least one with constant weights")
        eliminate_dead_code(graph)
        if any(node.kind() == "aten::linear" and constant(node.inputsAt(1)) is not None for node in graph.nodes()):
            found += place_native_linears(module, known, False)
        return found

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """As for native, with linears and tables of codes."""
        names = {LINEAR_CODES: "linear of codes", EMBED_CODES: "embeddings of codes"}
        counts: Counter[str] = Counter()
        for name, count in operators.items():
            counts[name.partition("[")[0]] += count
        own = [Fusion(what, name, counts[name]) for name, what in names.items() if counts[name]]
        return (*super().fusions(operators), *own)


def weights_to_round(model: Any) -> Iterator[tuple[torch.Tensor, bool]]:
    """The weights of linears and of the table of token embeddings, each once; and whether it is the table's or head's.

    They are views of the model's own memory, [outputs, inputs].
    """
    ends = [model.get_output_embeddings(), model.get_input_embeddings()]
    done: set[int] = set()
    for part in model.modules():
        weight = _weight_of(part, ends)
        if weight is not None and weight.data_ptr() not in done:
            done.add(weight.data_ptr())
            yield weight, any(part is end for end in ends)


def _weight_of(part: torch.nn.Module, ends: list[Any]) -> torch.Tensor | None:
    """The weight to round, [outputs, inputs]; None if the part has none."""
    # transformers' GPT-2 has linears of its own, with their weight the other way round.
    if type(part).__name__ == "Conv1D" and hasattr(part, "nf"):
        turned: Any = part.weight
        return turned.t() if isinstance(turned, torch.Tensor) else None
    if type(part) is torch.nn.Linear or any(part is end for end in ends):
        weight = getattr(part, "weight", None)
        return weight if isinstance(weight, torch.Tensor) and weight.dim() == 2 else None
    return None


class _Parts:
    """Codes in the graph: the values of codes, scales and zeros, and what the linear has to be told."""

    def __init__(self, values: list[Value], codes: Codes) -> None:
        self.values, self.outputs, self.group, self.bits = values, len(codes.codes), codes.group, codes.bits


class _Placed:
    """The codes that the graph has, each once, however many constants hold the same weight."""

    def __init__(self, graph: Graph, book: CodeBook) -> None:
        self._graph, self._book = graph, book
        self._first = next(iter(graph.nodes()))
        self._known: dict[str, _Parts | None] = {}
        self._weights: list[tuple[torch.Tensor, _Parts]] = []

    def codes(self, value: Value) -> _Parts | None:
        """The codes of a constant; None if it is none, or no known one."""
        weight, name = constant(value), value.debugName()
        if not isinstance(weight, torch.Tensor):
            return None
        if name not in self._known:
            same = (
                parts for other, parts in self._weights if other.shape == weight.shape and torch.equal(other, weight)
            )
            self._known[name] = next(same, None) or self._add(weight)
        return self._known[name]

    def _add(self, weight: torch.Tensor) -> _Parts | None:
        codes = self._book.find(weight)
        if codes is None:
            return None
        # In front of all nodes, since the table of embeddings and the head may share them.
        self._graph.setInsertPoint(self._first)
        parts = _Parts([self._graph.insertConstant(one) for one in packed(codes)], codes)
        self._weights.append((weight, parts))
        return parts


def _place_linear(graph: Graph, node: Node, parts: _Parts, known: dict[str, tuple[int, ...]]) -> str:
    """Put the operator in the place of a linear and what is fused with it; returns what it is, for people."""
    fused = find_fused(node, known)
    graph.setInsertPoint(fused.last)
    residual = graph.insertConstant(None) if fused.added is None else fused.added
    numbers = map(graph.insertConstant, (parts.outputs, parts.group, activation_of(fused)))
    arguments = [node.inputsAt(0), *parts.values, node.inputsAt(2), residual, *numbers]
    output = insert(graph, fused.last, LINEAR_CODES, arguments, node)
    take_over(fused.last.output(), output, known)
    return f"{fused.kind} in int{parts.bits}"


def linears_of_products(graph: Graph) -> None:
    """`addmm(bias, x, weight)` with a constant weight is a linear of the transposed one."""
    for node in list(graph.nodes()):
        if node.kind() != "aten::addmm":
            continue
        bias, x, weight, beta, alpha = node.inputs()
        number, added = constant(weight), constant(bias)
        if not isinstance(number, torch.Tensor) or not isinstance(added, torch.Tensor) or added.dim() != 1:
            continue
        if constant(beta) != 1 or constant(alpha) != 1:
            continue
        graph.setInsertPoint(node)
        turned = graph.insertConstant(number.t().contiguous())
        output = insert(graph, node, "aten::linear", [x, turned, bias], node)
        node.output().replaceAllUsesWith(output)
    eliminate_dead_code(graph)
