"""Computing only what the head reads: fewer tokens where one of each row is read, and the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.token_pruning import prune
from runtime.host import torchscript


class Layer(torch.nn.Module):
    """A feed-forward block with a residual addition and a layer norm, on tokens [batch, sequence, 8]."""

    def __init__(self, read: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.read = read
        self.mix = torch.nn.Linear(8, 8)
        self.up, self.down = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.positions = torch.nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, tokens: torch.Tensor) -> Any:
        # Attention stands for whatever mixes tokens.
        mixed = torch.matmul(torch.softmax(torch.matmul(tokens, tokens.transpose(1, 2)), -1), self.mix(tokens))
        return self.read(self.norm(mixed + self.down(torch.nn.functional.gelu(self.up(mixed)))))


def rows(hidden: torch.Tensor) -> torch.Tensor:
    """A token that depends on the tokens, as the last real one does in a decoder's classifier."""
    positions = (hidden.sum(-1) * 0 + torch.arange(hidden.shape[1])).argmax(-1)
    return hidden[torch.arange(hidden.shape[0]), positions]


def pruned(module: torch.nn.Module, shape: Sequence[int] = (2, 5, 8)) -> tuple[Any, int]:
    example = ExampleInputs({"tokens": torch.randn(*shape)})
    with torch.no_grad():
        frozen = torchscript.freeze(torchscript.trace(module.eval(), example.as_tuple()))
    return frozen, prune(frozen, example)


def rows_of_linears(frozen: Any, tokens: torch.Tensor) -> list[int]:
    """How many vectors each linear gets, read off its inputs' shapes in the profiler."""
    with torch.profiler.profile(record_shapes=True) as profile, torch.no_grad():
        frozen(tokens)
    events = [event for event in profile.events() if event.name == "aten::linear"]
    return [int(torch.tensor(event.input_shapes[0][:-1]).prod()) for event in events]


@pytest.mark.parametrize(
    "read",
    [lambda hidden: hidden[:, 0], lambda hidden: hidden[:, 0, :].tanh(), lambda hidden: hidden[:, -1]],
    ids=["first", "first-then-tanh", "last"],
)
def test_one_token_of_each_row(read: Callable[[torch.Tensor], torch.Tensor]) -> None:
    module = Layer(read)
    frozen, linears = pruned(module)
    assert linears == 2
    for shape in ((2, 5, 8), (1, 9, 8), (4, 3, 8)):
        tokens = torch.randn(*shape)
        with torch.no_grad():
            torch.testing.assert_close(frozen(tokens), module(tokens))
    # The one that mixes has all tokens; the two behind it one of each of the four rows.
    assert rows_of_linears(frozen, tokens) == [12, 4, 4]


def test_a_layer_as_decoders_have_it() -> None:
    """A root mean square norm, which divides each token by a number of its own, and a gate."""

    class Gated(Layer):
        def forward(self, tokens: torch.Tensor) -> Any:
            mixed = torch.matmul(torch.softmax(torch.matmul(tokens, tokens.transpose(1, 2)), -1), self.mix(tokens))
            normed = self.norm.weight * (mixed * torch.rsqrt(mixed.pow(2).mean(-1, keepdim=True) + 1e-6))
            return self.read(mixed + self.down(torch.nn.functional.silu(self.up(normed)) * self.up(normed)))

    module = Gated(lambda hidden: hidden[:, -1])
    frozen, linears = pruned(module)
    assert linears == 2
    for shape in ((2, 5, 8), (1, 9, 8), (4, 3, 8)):
        tokens = torch.randn(*shape)
        with torch.no_grad():
            torch.testing.assert_close(frozen(tokens), module(tokens))
    assert rows_of_linears(frozen, tokens) == [12, 4, 4]


@pytest.mark.parametrize(
    "norm",
    [
        lambda mixed: mixed - mixed.mean(1, keepdim=True),
        lambda mixed: mixed * mixed.mean(-1, keepdim=True).mean(0, keepdim=True),
    ],
    ids=["over tokens", "over rows"],
)
def test_means_over_other_axes_need_all_tokens(norm: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Normed(Layer):
        def forward(self, tokens: torch.Tensor) -> Any:
            return self.read(self.up(norm(self.mix(tokens))))

    module = Normed(lambda hidden: hidden[:, -1])
    frozen, linears = pruned(module)
    assert linears == 1
    tokens = torch.randn(3, 4, 8)
    with torch.no_grad():
        torch.testing.assert_close(frozen(tokens), module(tokens))


def test_a_token_that_each_row_has_elsewhere() -> None:
    """A position that is computed behind the layer cannot be had before it; one from the inputs can."""

    class Last(Layer):
        def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> Any:  # type: ignore[override]
            hidden = super().forward(tokens)
            return hidden[torch.arange(tokens.shape[0]), lengths - 1]

    module = Last(lambda hidden: hidden).eval()
    example = ExampleInputs({"tokens": torch.randn(2, 5, 8), "lengths": torch.tensor([5, 3])})
    with torch.no_grad():
        frozen = torchscript.freeze(torchscript.trace(module, example.as_tuple()))
    assert prune(frozen, example) == 2
    tokens, lengths = torch.randn(3, 7, 8), torch.tensor([7, 1, 4])
    with torch.no_grad():
        torch.testing.assert_close(frozen(tokens, lengths), module(tokens, lengths))
    assert rows_of_linears_of(frozen, tokens, lengths) == [21, 3, 3]
    assert pruned(Layer(rows))[1] == 0


def rows_of_linears_of(frozen: Any, *inputs: torch.Tensor) -> list[int]:
    return rows_of_linears(lambda tokens: frozen(tokens, *inputs[1:]), inputs[0])


@pytest.mark.parametrize(
    "read",
    [
        lambda hidden: (hidden[:, 0], hidden),
        lambda hidden: hidden[:, 0] + hidden.mean(1),
        lambda hidden: (hidden[:, 0], hidden[:, 1]),
        lambda hidden: hidden[0],
        lambda hidden: hidden[..., 0],
        lambda hidden: hidden[:, :1],
    ],
    ids=["all-as-well", "mean-as-well", "two-tokens", "one-row", "one-feature", "slice"],
)
def test_what_reads_more_is_left_alone(read: Callable[[torch.Tensor], Any]) -> None:
    module = Layer(read)
    frozen, linears = pruned(module)
    assert linears == 0
    tokens = torch.randn(3, 4, 8)
    with torch.no_grad():
        torch.testing.assert_close(frozen(tokens), module(tokens))


def test_positions_are_not_rows() -> None:
    """Something of shape [1, sequence, features] is not picked as tokens are; what stands above it stays whole."""

    class Placed(Layer):
        def forward(self, tokens: torch.Tensor) -> Any:
            return (self.up(tokens + self.positions) * 2)[:, 0]

    module = Placed(lambda hidden: hidden)
    frozen, linears = pruned(module)
    assert linears == 1
    tokens = torch.randn(5, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(frozen(tokens), module(tokens))
    assert rows_of_linears(frozen, tokens) == [5]
