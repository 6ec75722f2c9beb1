"""What the operators for joined tensors take over: attention and gated layers whose parts stand in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.backends.native.gated import GATED, place_gates
from exporter.backends.native.joined_attention import ATTEND_JOINED, place_joined_attention
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import shapes
from exporter.tracing.graphs.ir import graph_of
from runtime.host import torchscript
from runtime.host.native_library import register_native

pytestmark = [pytest.mark.cpp, pytest.mark.usefixtures("native_operators")]

HEADS, KV_HEADS, WIDTH = 6, 3, 8
SIZES = [HEADS * WIDTH, KV_HEADS * WIDTH, KV_HEADS * WIDTH]
Parts = tuple[Tensor, ...]


def in_order(x: Tensor) -> Parts:
    rows, tokens, _ = x.shape
    return tuple(part.view(rows, tokens, -1, WIDTH).transpose(1, 2) for part in x.split(SIZES, 2))


def sliced(x: Tensor) -> Parts:
    rows, tokens, _ = x.shape
    parts = x[..., : SIZES[0]], x[:, :, SIZES[0] : SIZES[0] + SIZES[1]], x[..., -SIZES[2] :]
    return tuple(part.reshape(rows, tokens, -1, WIDTH).permute(0, 2, 1, 3) for part in parts)


def values_first(x: Tensor) -> Parts:
    query, value, key = in_order(x)
    return query, key, value


def by_head_of_keys(x: Tensor) -> Parts:
    rows, tokens, _ = x.shape
    groups = x.view(rows, tokens, KV_HEADS, HEADS // KV_HEADS + 2, WIDTH)
    query, key, value = groups.split([HEADS // KV_HEADS, 1, 1], 3)
    return tuple(part.reshape(rows, tokens, -1, WIDTH).transpose(1, 2) for part in (query, key, value))


def keys_scaled(x: Tensor) -> Parts:
    query, key, value = in_order(x)
    return query, key * 2, value


class Layer(torch.nn.Module):
    """What a decoder's layer computes behind its joined linear."""

    def __init__(self, take: Callable[[Tensor], Parts], rotated: str) -> None:
        super().__init__()
        self.take, self.rotated = take, rotated

    def forward(
        self, x: Tensor, cosines: Tensor, sines: Tensor, places: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        ops = torch.ops.em_native
        query, key, value = self.take(x)
        if "queries" in self.rotated:
            query = ops.rotate(query, cosines, sines)
        if "keys" in self.rotated:
            key = ops.rotate(key, *((sines, cosines) if "otherwise" in self.rotated else (cosines, sines)))
        found = ops.attend_cached(query, key, value, keys, values, places, None, 0.5, 0)
        result: Tensor = found.reshape(found.shape[0], x.shape[1], -1).contiguous()
        return result + 1


def inputs(rows: int, tokens: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    angles = torch.randn(2, rows, 1, tokens, WIDTH)
    caches = torch.randn(2, rows, KV_HEADS, 13, WIDTH)
    places = torch.arange(tokens) + torch.arange(rows)[:, None]
    tensors = (torch.randn(rows, tokens, sum(SIZES)), *angles, places, *caches)
    return dict(zip(("x", "cosines", "sines", "places", "keys", "values"), tensors, strict=True))


@pytest.mark.parametrize(
    ("take", "rotated", "placed"),
    [
        (in_order, "queries and keys", 1),
        (in_order, "", 1),
        (sliced, "queries and keys", 1),
        (in_order, "queries", 0),
        (in_order, "queries and keys otherwise", 0),
        (values_first, "queries and keys", 0),
        (by_head_of_keys, "queries and keys", 0),
        (keys_scaled, "", 0),
    ],
)
def test_attention_of_parts_in_order_is_one_operator(
    take: Callable[[Tensor], Parts], rotated: str, placed: int
) -> None:
    """Whether it is placed or not, the answers and the caches keep their bits, at other sizes than the example's."""
    register_native()
    layer, example = Layer(take, rotated), ExampleInputs(inputs(2, 5))
    module = torchscript.freeze(torchscript.trace(layer.eval(), example.as_dict()))
    assert place_joined_attention(graph_of(module), shapes(module, example)) == placed
    kinds = [node.kind() for node in graph_of(module).nodes()]
    assert kinds.count(ATTEND_JOINED) == placed
    assert not placed or not any("rotate" in kind or "attend_cached" in kind or "reshape" in kind for kind in kinds)
    for rows, tokens in ((1, 1), (3, 4), (4, 2)):
        first, second = inputs(rows, tokens), inputs(rows, tokens)
        assert torch.equal(module(**first), layer(**second))
        assert all(torch.equal(first[name], second[name]) for name in first)


class Feed(torch.nn.Module):
    """A gated layer, from two linears or from one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.kind = kind
        self.gate, self.up = (torch.nn.Linear(12, 20, bias="bias" in kind) for _ in range(2))
        self.both = torch.nn.Linear(12, 40)

    def forward(self, x: Tensor) -> Any:
        silu, kind = torch.nn.functional.silu, self.kind
        if kind == "chunk":
            first, second = self.both(x).chunk(2, dim=-1)
            return torch.nn.functional.gelu(first) * second
        if kind == "slices, the other way round":
            whole = self.both(x)
            return whole[..., 20:] * torch.nn.functional.gelu(whole[..., :20], approximate="tanh")
        if kind == "second half activated":
            first, second = self.both(x).chunk(2, dim=-1)
            return first * silu(second)
        if kind == "halves that overlap":
            whole = self.both(x)
            return silu(whole[..., :20]) * whole[..., 19:39]
        if kind == "two inputs":
            return silu(self.gate(x)) * self.up(x + 1)
        if kind == "read twice":
            gate = self.gate(x)
            return silu(gate) * self.up(x) + gate
        if kind == "not activated":
            return self.gate(x) * self.up(x)
        if kind == "up first, bias":
            return self.up(x) * torch.relu(self.gate(x))
        return silu(self.gate(x)) * self.up(x)


@pytest.mark.parametrize(
    ("kind", "placed"),
    [
        ("two linears", 1),
        ("two linears, bias", 1),
        ("up first, bias", 1),
        ("chunk", 1),
        ("slices, the other way round", 1),
        ("second half activated", 0),
        ("halves that overlap", 0),
        ("two inputs", 0),
        ("read twice", 0),
        ("not activated", 0),
    ],
)
def test_gated_layers_are_one_linear_and_one_operator(kind: str, placed: int) -> None:
    register_native()
    layer, example = Feed(kind).eval(), ExampleInputs({"x": torch.randn(2, 5, 12)})
    module = torchscript.freeze(torchscript.trace(layer, example.as_dict()))
    assert place_gates(graph_of(module), shapes(module, example), lambda _: True) == placed
    kinds = [node.kind() for node in graph_of(module).nodes()]
    assert kinds.count(GATED) == placed
    assert not placed or (kinds.count("aten::linear") == 1 and "aten::mul" not in kinds)
    for shape in ((1, 1, 12), (3, 4, 12)):
        x = torch.randn(shape)
        torch.testing.assert_close(module(x), layer(x), rtol=1e-5, atol=1e-6)


def test_linears_stay_apart_where_the_backend_says_so() -> None:
    """As for weights of codes of two kinds."""
    layer, example = Feed("two linears").eval(), ExampleInputs({"x": torch.randn(2, 5, 12)})
    module = torchscript.freeze(torchscript.trace(layer, example.as_dict()))
    asked: list[list[tuple[int, ...]]] = []

    def refuse(weights: Sequence[Tensor]) -> bool:
        asked.append([tuple(weight.shape) for weight in weights])
        return False

    assert place_gates(graph_of(module), shapes(module, example), refuse) == 0
    assert asked == [[(20, 12), (20, 12)]]
