"""Which candidates (a backend and a form of attention) are tried for an export, in which order, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from exporter.backends.base import Backend, PaddingDropper
from exporter.config.request import Padding, Tune
from runtime.errors import RequestError, TorchVersionError
from runtime.format.manifest import Precision
from runtime.host.requirements import Environment, ipex_problem, minor

# The oldest release that the onednn backend is tested with; its operators are PyTorch's internal ones.
ONEDNN_SINCE = (2, 8)


def choose_backend(choice: str, environment: Environment) -> tuple[Backend, str]:
    """The backend, and why it was chosen.

    Raises:
        IpexMissingError, IpexVersionError: `ipex` was asked for and cannot be used.
        TorchVersionError: `onednn` was asked for from a torch without its operators.
    """
    from exporter.backends.ipex.backend import IpexBackend
    from exporter.backends.native.backend import NativeBackend
    from exporter.backends.onednn.backend import OnednnBackend
    from exporter.backends.plain import PlainBackend

    makers: dict[str, Callable[[], Backend]] = {
        "ipex": IpexBackend,
        "onednn": OnednnBackend,
        "native": NativeBackend,
        "plain": PlainBackend,
    }
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
    """Why PyTorch's own oneDNN operators cannot be used in this environment; None if they can."""
    if environment.torch is not None and minor(environment.torch) >= ONEDNN_SINCE:
        return None
    since = ".".join(map(str, ONEDNN_SINCE))
    return TorchVersionError(
        f"torch {environment.torch} is installed",
        f"torch {since} or newer, whose oneDNN operators this backend is tested with",
        "export with --backend plain",
    )


# How the model computes attention: as explicit products and softmax, which can be fused, or by PyTorch's own operator.
Attention = Literal["eager", "sdpa"]
_FORMS: tuple[Attention, ...] = ("sdpa", "eager")
ATTENTION: dict[Attention, str] = {
    "eager": "explicit, the form that can be fused",
    "sdpa": "PyTorch's own operator",
}


@dataclass(frozen=True)
class Candidate:
    """One combination to export with, and why it is tried.

    Candidates that are `timed` compete; the others are tried after these have failed. With `drop_padding`, padding is
    skipped if the model has any.
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


def list_candidates(
    choice: str, environment: Environment, tune: Tune, precision: Precision, padding: Padding, long: bool = False
) -> list[Candidate]:
    """The candidates to try until one is correct, in the order that applies if nothing is timed.

    For an explicit backend there is a single one, unless `tune` is `full`. Backends without the precision are left out.
    `long`: sequences are so long that the products of explicit attention take gigabytes; each backend then starts with
    PyTorch's own operator, and has explicit attention for models that know no other.

    Raises:
        IpexMissingError, IpexVersionError, TorchVersionError: the backend asked for cannot be used.
        RequestError: neither the backend asked for nor any other usable one has the precision.
    """
    able = [
        replace(candidate, drop_padding=padding == "drop" and isinstance(candidate.backend, PaddingDropper))
        for candidate in (_long_candidates if long else _all_candidates)(choice, environment, tune)
        if precision in candidate.backend.precisions
    ]
    if not able:
        raise RequestError(
            f"{precision} is not available with --backend {choice} here",
            "the ipex or the onednn backend",
            "give --backend ipex (with torch 2.8) or --backend onednn (with torch 2.8 or newer)",
        )
    return able


def _all_candidates(choice: str, environment: Environment, tune: Tune) -> list[Candidate]:
    backend, reason = choose_backend(choice, environment)
    timed = tune != "off" and (choice == "auto" or tune == "full")
    found = [Candidate(backend, "eager", reason, timed)]
    if choice == "auto" or tune == "full":
        found.append(Candidate(backend, "sdpa", "the attention of PyTorch", tune == "full"))
    if choice == "auto" and backend.name == "ipex" and onednn_problem(environment) is None:
        onednn, _ = choose_backend("onednn", environment)
        found.append(Candidate(onednn, "eager", "without IPEX", timed))
        if tune == "full":
            found.append(Candidate(onednn, "sdpa", "without IPEX, the attention of PyTorch", timed))
    if choice == "auto" and backend.name != "plain":
        plain, _ = choose_backend("plain", environment)
        found.append(Candidate(plain, "eager", "the trace as it is", timed))
        if tune == "full":
            found.append(Candidate(plain, "sdpa", "the trace as it is, the attention of PyTorch", timed))
    return found


def _long_candidates(choice: str, environment: Environment, tune: Tune) -> list[Candidate]:
    """The same backends, each with PyTorch's own attention, then each with explicit attention."""
    found = [candidate for candidate in _all_candidates(choice, environment, tune) if candidate.attention == "eager"]
    own = [replace(candidate, attention="sdpa") for candidate in found]
    return own + [replace(candidate, timed=False) for candidate in found]


def decoder_candidates(choice: str, environment: Environment, precision: Precision) -> list[Candidate]:
    """The candidates for a file that generates text, in the order in which they are tried; none is timed.

    Raises:
        RequestError: the backend asked for cannot do it, or the precision is not available yet.
        TorchVersionError: as for `choose_backend`.
    """
    able = ("onednn", "plain")
    if choice not in ("auto", *able):
        raise RequestError(
            f"--backend {choice} does not generate text yet", " or ".join(able), "leave --backend out, or name one"
        )
    if precision not in ("fp32", "bf16"):
        raise RequestError(f"{precision} is not available for text-generation yet", "fp32 or bf16", "give one of them")
    usable = [name for name in able if choice == name or (choice == "auto" and _usable(name, environment))]
    return [
        Candidate(choose_backend(name, environment)[0], attention, "the first that generates text", False, False)
        for name in usable
        for attention in _FORMS
    ]


def _usable(name: str, environment: Environment) -> bool:
    return name != "onednn" or onednn_problem(environment) is None
