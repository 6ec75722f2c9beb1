"""Which candidates (a backend and a form of attention) are tried for an export, in which order, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from exporter.backends.base import Backend, PaddingDropper
from exporter.config.request import Padding, Tune
from runtime.errors import NativeLibraryError, RequestError, RequirementError, TorchVersionError
from runtime.format.manifest import Precision
from runtime.host.native_library import register_native
from runtime.host.requirements import Environment, ipex_problem, minor

# The oldest release that the onednn backend is tested with; its operators are PyTorch's internal ones.
ONEDNN_SINCE = (2, 8)
# The backends whose files need torch and nothing else.
STOCK = ("onednn", "plain")


def choose_backend(choice: str, environment: Environment) -> tuple[Backend, str]:
    """The first of the backends that a choice allows, and why it is the first.

    Raises:
        IpexMissingError, IpexVersionError: `ipex` was asked for and cannot be used.
        TorchVersionError: `onednn` was asked for from a torch without its operators.
        NativeLibraryError: `native` was asked for and its library cannot be used.
    """
    return _backends(choice, environment)[0]


def _backends(choice: str, environment: Environment) -> list[tuple[Backend, str]]:
    """The backends that a choice allows and that can be used here, in order, each with the reason for it.

    `auto` is all of them. If two are equally fast, the earlier one ships: so `native`, whose files need this project's
    library, comes after `onednn`, whose files need torch alone. `stock` is those that need torch alone.
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
    if choice in makers:
        problem = _PROBLEMS[choice](environment) if choice in _PROBLEMS else None
        if problem is not None:
            raise problem
        return [(makers[choice](), "as requested")]
    no_ipex = ipex_problem(environment) if choice == "auto" else None
    wanted = [name for name in makers if choice == "auto" or name in STOCK]
    found = [name for name in wanted if name not in _PROBLEMS or _PROBLEMS[name](environment) is None]
    reasons = {
        "ipex": f"IPEX {environment.ipex} is installed",
        "onednn": "without IPEX",
        "native": "this project's own operators",
        "plain": "the trace as it is",
    }
    if no_ipex is not None:
        reasons[found[0]] = f"without IPEX: {no_ipex.found}"
    return [(makers[name](), reasons[name]) for name in found]


def left_out(choice: str, environment: Environment) -> list[str]:
    """Which backends `auto` would try and cannot, and why, for people."""
    if choice != "auto":
        return []
    problems = ((name, problem(environment)) for name, problem in _PROBLEMS.items())
    return [f"{name} not tried: {problem.found}" for name, problem in problems if problem is not None]


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


def native_problem(environment: Environment) -> NativeLibraryError | None:
    """Why this project's own operators cannot be used in this environment; None if they can."""
    if environment.torch is None or minor(environment.torch) < ONEDNN_SINCE:
        since = ".".join(map(str, ONEDNN_SINCE))
        return NativeLibraryError(f"torch {environment.torch} is installed", f"torch {since} or newer")
    try:
        register_native()
    except NativeLibraryError as error:
        return error
    return None


_PROBLEMS: dict[str, Callable[[Environment], RequirementError | None]] = {
    "ipex": ipex_problem,
    "onednn": onednn_problem,
    "native": lambda environment: native_problem(environment),
}

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
        IpexMissingError, IpexVersionError, NativeLibraryError, TorchVersionError: the backend asked for cannot be used.
        RequestError: neither the backend asked for nor any other usable one has the precision.
    """
    able = [
        replace(candidate, drop_padding=padding == "drop" and isinstance(candidate.backend, PaddingDropper))
        for candidate in (_long_candidates if long else _all_candidates)(choice, environment, tune)
        if precision in candidate.backend.precisions
    ]
    if not able:
        if precision == "int4":
            raise RequestError("int4 is for text-generation alone", "another precision", "give --int8 or --bf16")
        raise RequestError(
            f"{precision} is not available with --backend {choice} here",
            "the ipex or the onednn backend",
            "give --backend ipex (with torch 2.8) or --backend onednn (with torch 2.8 or newer)",
        )
    return able


def _all_candidates(choice: str, environment: Environment, tune: Tune) -> list[Candidate]:
    """Each backend with explicit attention; the first one, or with `full` each, with PyTorch's own too."""
    several = choice in ("auto", "stock")
    timed = tune != "off" and (several or tune == "full")
    found = []
    for number, (backend, reason) in enumerate(_backends(choice, environment)):
        found.append(Candidate(backend, "eager", reason, timed))
        if tune == "full" or (several and number == 0):
            own = "the attention of PyTorch" if number == 0 else f"{reason}, the attention of PyTorch"
            found.append(Candidate(backend, "sdpa", own, tune == "full"))
    return found


def _long_candidates(choice: str, environment: Environment, tune: Tune) -> list[Candidate]:
    """The same backends, each with PyTorch's own attention, then each with explicit attention."""
    found = [candidate for candidate in _all_candidates(choice, environment, tune) if candidate.attention == "eager"]
    own = [replace(candidate, attention="sdpa") for candidate in found]
    return own + [replace(candidate, timed=False) for candidate in found]


def decoder_candidates(choice: str, environment: Environment, precision: Precision, group: int) -> list[Candidate]:
    """The candidates for a file that generates text, in the order in which they are tried; none is timed.

    `native` comes before `onednn`: for single tokens it is faster, which no timing of full batches shows
    (docs/decisions/generation.md). `group` is the number of inputs that share a scale in int4.

    Raises:
        RequestError: the backend asked for cannot do it, or not in this precision.
        NativeLibraryError, TorchVersionError: as for `choose_backend`.
    """
    able = ("native", *STOCK)
    if choice not in ("auto", "stock", *able):
        raise RequestError(
            f"--backend {choice} does not generate text yet", ", ".join(able), "leave --backend out, or name one"
        )
    if precision in ("int8", "int4"):
        if choice not in ("auto", "native"):
            raise RequestError(
                f"{precision} is not available with --backend {choice} for text-generation: PyTorch's own operators "
                "for such weights want inputs in bf16",
                "the backend native",
                "leave --backend out, or give --backend native",
            )
        backend = _coded_backend(environment, group)
        return [Candidate(backend, attention, "weights of codes", False, False) for attention in _FORMS]
    allowed = {"auto": able, "stock": STOCK}.get(choice, (choice,))
    usable = [name for name in allowed if choice == name or _usable(name, environment)]
    return [
        Candidate(
            _decoder_backend(name, environment, precision), attention, "the first that generates text", False, False
        )
        for name in usable
        for attention in _FORMS
    ]


def _decoder_backend(name: str, environment: Environment, precision: Precision) -> Backend:
    """The backend of that name; `native` in bf16 keeps in fp32 what lies between the weights."""
    from exporter.backends.native.half_weights import HalfWeightsBackend

    backend = choose_backend(name, environment)[0]
    return HalfWeightsBackend() if name == "native" and precision == "bf16" else backend


def _coded_backend(environment: Environment, group: int) -> Backend:
    """The backend `native` with weights of codes.

    Raises:
        NativeLibraryError: its library cannot be used.
    """
    from exporter.backends.native.coded import CodedBackend

    problem = native_problem(environment)
    if problem is not None:
        raise problem
    return CodedBackend(group)


def _usable(name: str, environment: Environment) -> bool:
    return name not in _PROBLEMS or _PROBLEMS[name](environment) is None
