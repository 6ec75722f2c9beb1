"""Backends: each makes the module fast before the trace and says afterwards what was fused.

In: the user's choice and the environment. Out: `Candidate`s, the ways to try in order. Refuses a backend that
cannot work here. One room a backend, all with the interface below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from exporter.inputs import ExampleInputs
from exporter.request import Tune
from runtime.environment import Environment, ipex_problem, minor
from runtime.errors import TorchVersionError
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


# How the model computes attention: written out, which is the form that fuses, or PyTorch's own operator.
Attention = Literal["eager", "sdpa"]
ATTENTION: dict[Attention, str] = {
    "eager": "written out, the form that fuses",
    "sdpa": "PyTorch's own operator",
}


@dataclass(frozen=True)
class Candidate:
    """One way to export, and why it is tried.

    Those that are `timed` compete; the others wait until these have failed.
    """

    backend: Backend
    attention: Attention
    reason: str
    timed: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.backend.name} with {self.attention} attention"


def candidates(choice: str, environment: Environment, tune: Tune) -> list[Candidate]:
    """The ways to try until one passes the gate, in the order that holds where nothing is timed.

    An explicit backend has a single one, unless the tuning is full.

    Raises:
        IpexMissingError, IpexVersionError, TorchVersionError: the backend asked for cannot be used.
    """
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
