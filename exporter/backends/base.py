"""What a backend does: it makes the module fast before the trace, and says afterwards what was fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch

from exporter.shapes.example_inputs import ExampleInputs
from runtime.format.manifest import Backend as BackendName
from runtime.format.manifest import Fusion, Precision, Requirements
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule


class Backend(Protocol):
    """What a backend does."""

    name: BackendName
    # Which kernels compute, in words for people.
    kernels: str
    # What it can compute in. One with int8 is a `Quantiser`.
    precisions: tuple[Precision, ...]
    # Whether its files need TorchScript to optimise them at the first calls.
    optimised_at_run: bool

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """What a consumer of its artifacts must have."""

    def optimise(self, module: torch.nn.Module, precision: Precision) -> torch.nn.Module:
        """Prepare the module for the trace; may change it in place.

        Raises:
            BackendError: if that fails.
        """

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """The context to trace in."""

    def rewrite(self, module: ScriptModule, example: ExampleInputs) -> str:
        """Rewrite the frozen trace in place; says what was done, in words, empty where nothing was.

        Raises:
            BackendError: if there is nothing for the backend to do.
        """

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """The fused ones among the operators of an executed graph."""


@runtime_checkable
class Quantiser(Backend, Protocol):
    """A backend with int8: `quantise` stands in the place of `optimise`."""

    def quantise(
        self,
        module: torch.nn.Module,
        samples: Sequence[Mapping[str, torch.Tensor]],
        example: ExampleInputs,
        progress: Callable[[int], None],
    ) -> tuple[torch.nn.Module, str]:
        """The module with ranges fitted to the samples, and how it computes, in words; may change it in place.

        Args:
            module: in evaluation mode.
            samples: inputs by name.
            example: the one that will be traced.
            progress: told the number of samples done, after each.

        Raises:
            BackendError: if that fails, or nothing in the module can be computed in int8.
        """


@runtime_checkable
class PaddingDropper(Backend, Protocol):
    """A backend whose files can do without work on padding."""

    def drop_padding(self, module: ScriptModule, example: ExampleInputs) -> tuple[int, list[str]]:
        """Rewrite the frozen trace in place, before `rewrite`.

        The places of padding in what comes out repeat their row's last real token.

        Args:
            module: frozen.
            example: with an `attention_mask`, [rows, tokens], of rows that are padded behind.

        Returns:
            How many attentions do without padding, 0 where none can; and all that was done, in words.
        """


def optimise(
    backend: Backend,
    module: torch.nn.Module,
    precision: Precision,
    example: ExampleInputs,
    samples: Sequence[Mapping[str, torch.Tensor]],
    progress: Callable[[int], None],
) -> tuple[torch.nn.Module, list[str]]:
    """The module as the backend prepares it for the trace, with samples in int8; and what to say of that.

    Raises:
        BackendError: if that fails.
    """
    if precision != "int8":
        return backend.optimise(module, precision), []
    assert isinstance(backend, Quantiser)  # `candidates` leaves out the others
    quantised, words = backend.quantise(module, samples, example, progress)
    return quantised, [words]
