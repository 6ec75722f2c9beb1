"""The interface of a backend, and of its optional abilities: int8, rounding of weights, and skipping padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch

from exporter.loading.weight_codes import Codes
from exporter.shapes.example_inputs import ExampleInputs
from runtime.format.manifest import Backend as BackendName
from runtime.format.manifest import Fusion, Precision, Requirements
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule


class Backend(Protocol):
    """Makes a model fast before the trace, rewrites the trace, and reports what was fused."""

    name: BackendName
    # Which kernels compute, for people.
    kernels: str
    # The precisions it can compute in. A backend with int8 is a `Quantiser`.
    precisions: tuple[Precision, ...]
    # Whether its files need TorchScript's optimisation at the first calls.
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

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """Rewrite the frozen trace in place; returns what was done, for people, or "".

        Raises:
            BackendError: if there is nothing for the backend to do.
        """

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """The fused operators among those of an executed graph."""


@runtime_checkable
class Quantiser(Backend, Protocol):
    """A backend with int8: `quantise` replaces `optimise`."""

    def quantise(
        self,
        module: torch.nn.Module,
        samples: Sequence[Mapping[str, torch.Tensor]],
        example: ExampleInputs,
        progress: Callable[[int], None],
    ) -> tuple[torch.nn.Module, str]:
        """The module with ranges fitted to the samples, and how it computes, for people; may change it in place.

        Args:
            module: in evaluation mode.
            samples: inputs by name.
            example: the one that will be traced.
            progress: called after each sample with the number done.

        Raises:
            BackendError: if that fails, or nothing in the module can be computed in int8.
        """


@runtime_checkable
class WeightRounder(Backend, Protocol):
    """A backend that rounds weights alone, so that the rounded model can be compared with the file in fp32."""

    def round_weights(self, model: Any, precision: Precision, given: Sequence[Codes]) -> str:
        """Replace weights of the model by rounded ones, in place; returns what was done, for people.

        Weights that have codes already, those `given`, stay as they are.

        Raises:
            BackendError: if there is nothing to round.
        """


@runtime_checkable
class PaddingDropper(Backend, Protocol):
    """A backend whose files can skip padding."""

    def drop_padding(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> tuple[int, list[str]]:
        """Rewrite the frozen trace in place, before `rewrite`.

        In the outputs, padded positions repeat their row's last real token.

        Args:
            module: frozen.
            example: with an `attention_mask`, [rows, tokens], of rows padded on the right.
            precision: as for `rewrite`.

        Returns:
            How many attentions now skip padding, and notes on all that was done.
        """


@runtime_checkable
class CacheAttender(Backend, Protocol):
    """A backend with an operator for attention over the cache of a model that generates text."""

    attends_caches: bool


def optimise(
    backend: Backend,
    module: torch.nn.Module,
    precision: Precision,
    example: ExampleInputs,
    samples: Sequence[Mapping[str, torch.Tensor]],
    progress: Callable[[int], None],
) -> tuple[torch.nn.Module, list[str]]:
    """The module as the backend prepares it for the trace, fitted to samples for int8; and notes on that.

    Raises:
        BackendError: if that fails.
    """
    if precision != "int8":
        return backend.optimise(module, precision), []
    assert isinstance(backend, Quantiser)  # `list_candidates` leaves out the others
    quantised, summary = backend.quantise(module, samples, example, progress)
    return quantised, [summary]
