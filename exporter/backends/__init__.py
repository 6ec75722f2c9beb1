"""Backends: each makes the module fast before the trace and says afterwards what was fused.

In: the user's choice and the environment. Out: `Candidate`s, the ways to try in order. Refuses a backend that
cannot work here. One room a backend, all with the interface below.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from runtime.environment import Environment, ipex_problem
from runtime.manifest import Backend as BackendName
from runtime.manifest import Fusion, Precision, Requirements


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

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """The fused ones among the operators of an executed graph."""


def choose_backend(choice: str, environment: Environment) -> tuple[Backend, str]:
    """The backend and why.

    Raises:
        IpexMissingError, IpexVersionError: `ipex` was asked for and cannot be used.
    """
    from exporter.backends.ipex import IpexBackend
    from exporter.backends.plain import PlainBackend

    problem = ipex_problem(environment)
    if choice == "plain":
        return PlainBackend(), "as requested"
    if choice == "ipex":
        if problem is not None:
            raise problem
        return IpexBackend(), "as requested"
    if problem is not None:
        return PlainBackend(), f"without IPEX: {problem.found}"
    return IpexBackend(), f"IPEX {environment.ipex} is installed"


# How the model computes attention: written out, which is the form that IPEX fuses, or PyTorch's own operator.
Attention = Literal["eager", "sdpa"]
ATTENTION: dict[Attention, str] = {
    "eager": "written out, the form that IPEX fuses",
    "sdpa": "PyTorch's own operator",
}


@dataclass(frozen=True)
class Candidate:
    """One way to export, and why it is tried."""

    backend: Backend
    attention: Attention
    reason: str


def candidates(choice: str, environment: Environment) -> list[Candidate]:
    """The ways to try until one passes the gate; an explicit backend has a single one.

    Raises:
        IpexMissingError, IpexVersionError: `ipex` was asked for and cannot be used.
    """
    backend, reason = choose_backend(choice, environment)
    first = Candidate(backend, "eager", reason)
    if choice != "auto":
        return [first]
    plain, _ = choose_backend("plain", environment)
    others = [Candidate(backend, "sdpa", "the attention of PyTorch")]
    if backend.name != "plain":
        others.append(Candidate(plain, "eager", "without IPEX"))
    return [first, *others]
