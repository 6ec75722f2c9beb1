"""What changes nothing is left out of a decoder's graph; what changes something, or makes a copy, stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from exporter.backends.native.no_ops import leave_out_no_ops
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import dtypes
from exporter.tracing.graphs.ir import graph_of
from runtime.host import torchscript


class Calls(torch.nn.Module):
    """A function between two sums, so that its result is computed."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x + 1) + 1


@pytest.mark.parametrize(
    ("function", "left_out", "stays"),
    [
        (lambda x: x.to(torch.float32), 1, []),
        (lambda x: x.type_as(x), 1, []),
        (lambda x: x[:, :], 2, []),
        (lambda x: x.to(torch.float64).to(torch.float32), 0, ["aten::to", "aten::to"]),
        (lambda x: x.to(torch.float32, copy=True), 0, ["aten::to"]),
        (lambda x: x.to(torch.float32, memory_format=torch.channels_last), 0, ["aten::to"]),
        (lambda x: x[:, 1:], 1, ["aten::slice"]),
        (lambda x: x[:, ::2], 1, ["aten::slice"]),
    ],
)
def test_what_changes_nothing_is_left_out(
    function: Callable[[Tensor], Tensor], left_out: int, stays: list[str]
) -> None:
    layer, example = Calls(function).eval(), ExampleInputs({"x": torch.randn(2, 5, 3, 4)})
    module = torchscript.freeze(torchscript.trace(layer, example.as_dict()))
    assert leave_out_no_ops(graph_of(module), dtypes(module, example)) == left_out
    kinds = [node.kind() for node in graph_of(module).nodes()]
    assert [kind for kind in kinds if kind in ("aten::to", "aten::type_as", "aten::slice")] == stays
    x = torch.randn(3, 4, 3, 4)
    assert torch.equal(module(x), layer(x))
