"""Backends: each makes the module fast before the trace and says afterwards what was fused.

In: the user's choice and the environment. Out: `Candidate`s, the ways to try in order. Refuses a backend that
cannot work here. One room a backend, all with the interface below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from exporter.inputs import ExampleInputs
from exporter.request import Padding, Tune
from runtime.environment import Environment, ipex_problem, minor
from runtime.errors import RequestError, TorchVersionError
from runtime.manifest import Backend as BackendName
from runtime.manifest import Fusion, Precision, Requirements
from runtime.torchscript import ScriptModule

# The oldest release that the onednn backend is tested with; its operators are PyTorch's internal ones.
ONEDNN_SINCE = (2, 8)


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


def choose_backend(choice: str, environment: Environment) -> tuple[Backend, str]:
    """The backend and why.

    Raises:
        IpexMissingError, IpexVersionError: `ipex` was asked for and cannot be used.
        TorchVersionError: `onednn` was asked for from a torch without its operators.
    """
    from exporter.backends.ipex import IpexBackend
    from exporter.backends.onednn import OnednnBackend
    from exporter.backends.plain import PlainBackend

    makers: dict[str, Callable[[], Backend]] = {"ipex": IpexBackend, "onednn": OnednnBackend, "plain": PlainBackend}
    problems = {"ipex": ipex_problem(environment), "onednn": onednn_problem(environment)}
    if choice != "auto":
        if (problem := problems.get(choice)) is not None:
            raise problem
        return makers[choice](), "as requested"
    if problems["ipex"] is None:
        return IpexBackend(), f"IPEX {environment.ipex} is installed"
    name = "onednn" if problems["onednn"] is None else "plain"
    return makers[name](), f"without IPEX: {problems['ipex'].found}"


def onednn_problem(environment: Environment) -> TorchVersionError | None:
    """Why PyTorch's own oneDNN operators cannot be used here; None if they can."""
    if environment.torch is not None and minor(environment.torch) >= ONEDNN_SINCE:
        return None
    since = ".".join(map(str, ONEDNN_SINCE))
    return TorchVersionError(
        f"torch {environment.torch} is installed",
        f"torch {since} or newer, with whose oneDNN operators this backend is tested",
        "export with --backend plain",
    )


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


# How the model computes attention: written out, which is the form that fuses, or PyTorch's own operator.
Attention = Literal["eager", "sdpa"]
ATTENTION: dict[Attention, str] = {
    "eager": "written out, the form that fuses",
    "sdpa": "PyTorch's own operator",
}


@dataclass(frozen=True)
class Candidate:
    """One way to export, and why it is tried.

    Those that are `timed` compete; the others wait until these have failed. Where the model has padding, `drop_padding`
    leaves it out.
    """

    backend: Backend
    attention: Attention
    reason: str
    timed: bool = False
    drop_padding: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.backend.name} with {self.attention} attention" + (", padding dropped" * self.drop_padding)


def candidates(
    choice: str, environment: Environment, tune: Tune, precision: Precision, padding: Padding
) -> list[Candidate]:
    """The ways to try until one passes the gate, in the order that holds where nothing is timed.

    An explicit backend has a single one, unless the tuning is full. Backends without the precision are not tried.

    Raises:
        IpexMissingError, IpexVersionError, TorchVersionError: the backend asked for cannot be used.
        RequestError: the backend asked for, or all that can be used here, do not have the precision.
    """
    able = [
        replace(way, drop_padding=padding == "drop" and isinstance(way.backend, PaddingDropper))
        for way in _ways(choice, environment, tune)
        if precision in way.backend.precisions
    ]
    if not able:
        raise RequestError(
            f"there is no {precision} with --backend {choice} here",
            "the ipex or the onednn backend",
            "give --backend ipex, beside torch 2.8, or --backend onednn, with torch 2.8 or newer",
        )
    return able


def _ways(choice: str, environment: Environment, tune: Tune) -> list[Candidate]:
    backend, reason = choose_backend(choice, environment)
    timed = tune != "off" and (choice == "auto" or tune == "full")
    ways = [Candidate(backend, "eager", reason, timed)]
    if choice == "auto" or tune == "full":
        ways.append(Candidate(backend, "sdpa", "the attention of PyTorch", tune == "full"))
    if choice == "auto" and backend.name == "ipex" and onednn_problem(environment) is None:
        onednn, _ = choose_backend("onednn", environment)
        ways.append(Candidate(onednn, "eager", "without IPEX", timed))
        if tune == "full":
            ways.append(Candidate(onednn, "sdpa", "without IPEX, the attention of PyTorch", timed))
    if choice == "auto" and backend.name != "plain":
        plain, _ = choose_backend("plain", environment)
        ways.append(Candidate(plain, "eager", "the trace as it is", timed))
        if tune == "full":
            ways.append(Candidate(plain, "sdpa", "the trace as it is, the attention of PyTorch", timed))
    return ways
