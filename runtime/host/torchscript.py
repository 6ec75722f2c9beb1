"""PyTorch's TorchScript, as this project uses it, on every line of torch from 1.13 on.

In: modules, example inputs, files. Out: what the function of that name in `torch.jit` gives. Refuses nothing: what
torch raises passes through, for the callers to name. The only room that calls `torch.jit`.

Newer releases of torch deprecate TorchScript, with a warning at every call, and name torch.export as its successor. A
user of an artifact can do nothing about that, so the warnings stop here; docs/decisions.md says what happens on the
day that torch.jit goes.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, Any, NamedTuple

import torch

# In torch.jit's private part in every release; a name of its own here, so that a move is mended in one place.
from torch.jit._trace import TracerWarning

__all__ = [
    "DICT_SINCE",
    "FAILURES",
    "INTEGER",
    "INTEGERS",
    "TENSOR",
    "TENSORS",
    "Call",
    "Computed",
    "ScriptModule",
    "TracerWarning",
    "as_if_tracing",
    "calls",
    "define",
    "eliminate_dead_code",
    "executed_graph",
    "filtered",
    "freeze",
    "inline_calls",
    "is_tracing",
    "knows_operator",
    "load",
    "merge_equal_nodes",
    "optimising",
    "python_calls",
    "run_graph",
    "save",
    "trace",
    "tuple_of",
]

ScriptModule = torch.jit.ScriptModule
# Whatever C++ throws out of a file's code or pickles, by the names that Python gives it.
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, OSError, MemoryError, ArithmeticError)

TENSOR = torch._C.TensorType.get()
INTEGER = torch._C.IntType.get()
# Types of lists.
INTEGERS = torch._C.ListType.ofInts()
TENSORS = torch._C.ListType.ofTensors()

# Classes of C++: which of them and which of their methods code may name was checked in its text.
_CPP_CLASSES = "__torch__.torch.classes."

# The release with which `example_kwarg_inputs` came.
DICT_SINCE = (2, 0)


@contextmanager
def _deprecations_held_back() -> Iterator[None]:
    """Around a call of torch.jit: its own deprecation warnings are dropped, all others pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield


def filtered(call: Callable[[], Any]) -> Any:
    """The call's answer. What C++ warns of in it goes through Python's filters.

    PyTorch arranges that for each of its functions on tensors, for the length of the call. Loading, tracing and custom
    operators are none, and their warnings go straight to standard error. So the call is made from within one; a mode
    of torch functions (`TorchFunctionMode`) that is active outside is off in it.
    """
    found: list[Any] = []

    def once(number: float) -> float:
        found.append(call())
        return number

    torch.zeros(1).apply_(once)
    return found[0]


def trace(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...],
    context: AbstractContextManager[Any] | None = None,
) -> ScriptModule:
    """Trace in a context, with example inputs by name (from torch 2.0 on) or in order.

    The trace is not compared here: that happens on the written file, in a new process, at several shapes.
    """
    inputs: dict[str, Any]
    inputs = {"example_inputs": example} if isinstance(example, tuple) else {"example_kwarg_inputs": dict(example)}

    def traced() -> Any:
        # Entered within `filtered`, whose own call a mode of torch functions would otherwise take for the model's.
        with context or nullcontext():
            return torch.jit.trace(module, check_trace=False, **inputs)

    with _deprecations_held_back():
        found: ScriptModule = filtered(traced)
    return found


@contextmanager
def as_if_tracing() -> Iterator[None]:
    """Models that ask whether they are being traced are told so: they then take the way that a trace will take.

    Asked without, transformers leaves out a mask that hides nothing; a trace never does.
    """
    jit: Any = torch.jit
    asked = jit.is_tracing
    jit.is_tracing = lambda: True
    try:
        yield
    finally:
        jit.is_tracing = asked


def freeze(module: ScriptModule) -> ScriptModule:
    """The module with its weights as constants of the graph."""
    with _deprecations_held_back():
        frozen: ScriptModule = torch.jit.freeze(module)
    return frozen


def save(module: ScriptModule, file: IO[bytes], extra_files: Mapping[str, str | bytes]) -> None:
    """Write the archive; `extra_files` lie beside the code."""
    with _deprecations_held_back():
        torch.jit.save(module, file, _extra_files=dict(extra_files))


def load(file: str | IO[bytes]) -> ScriptModule:
    """The module, on the CPU."""
    with _deprecations_held_back():
        module: ScriptModule = filtered(lambda: torch.jit.load(file, map_location="cpu"))
    return module


def python_calls(frozen: ScriptModule) -> list[str]:
    """The names of Python functions that a frozen module calls: no archive can hold these."""
    blocks: list[Any] = [frozen.graph]
    found: list[str] = []
    while blocks:
        for node in blocks.pop().nodes():
            blocks.extend(node.blocks())
            if node.kind() == "prim::PythonOp":
                found.append(str(node.pyname()))
    return found


class Computed(NamedTuple):
    """An argument that is no constant, and the operator that gives it."""

    operator: str


class Call(NamedTuple):
    """A call of an operator in a graph; `node` is torch's own."""

    operator: str
    arguments: tuple[str, ...]
    node: Any

    def value(self, place: int) -> Any:
        """The argument at this place: a constant, a list of constants that nothing else uses, or `Computed`."""
        value = self.node.inputsAt(place)
        # Of a list that something else uses, its items could be changed there.
        if value.node().kind() == "prim::ListConstruct" and len(value.uses()) == 1:
            return [_constant(item) for item in value.node().inputs()]
        return _constant(value)


def _constant(value: Any) -> Any:
    kind = value.node().kind()
    return value.toIValue() if kind == "prim::Constant" else Computed(str(kind))


def calls(module: ScriptModule) -> Iterator[Call]:
    """Every call in the methods of a module and of its submodules, each class once, as their code is written.

    Calls that lead anywhere else have no names of arguments: of functions, of methods of other classes, and of
    constructors. What is on the way is not inlined: a few methods that call each other twice would become a graph
    without an end.
    """
    classes: dict[str, Any] = {}
    waiting = [module._c]
    while waiting:
        owner = waiting.pop()
        name = owner._type().qualified_name()
        if name not in classes:
            classes[name] = owner
            waiting.extend(part for _, part in torch._C.ModuleDict(owner).items())
    for owner in classes.values():
        for method in owner._method_names():
            yield from _calls_of(owner._get_method(method).graph, classes)


def _calls_of(graph: Any, classes: Collection[str]) -> Iterator[Call]:
    blocks: list[Any] = [graph]
    while blocks:
        for node in blocks.pop().nodes():
            kind = node.kind()
            # To ask each node for its blocks takes longer than all else.
            if kind.startswith("prim::") and kind not in ("prim::Constant", "prim::ListConstruct"):
                blocks.extend(node.blocks())
            if kind == "prim::CallMethod":
                receiver = node.inputsAt(0).type()
                name = receiver.qualified_name() if receiver.kind() == "ClassType" else ""
                if name not in classes and not name.startswith(_CPP_CLASSES):
                    yield Call(kind, (), node)
            elif kind in ("prim::CallFunction", "prim::CreateObject"):
                yield Call(kind, (), node)
            elif (schema := node.schema()) != "(no schema)":
                yield Call(kind, _argument_names(schema), node)


@functools.cache
def _argument_names(schema: str) -> tuple[str, ...]:
    return tuple(argument.name for argument in torch._C.parse_schema(schema).arguments)


def optimising(wanted: bool) -> AbstractContextManager[None]:
    """Whether this thread's calls let TorchScript optimise, which it does during the first ones; each way once."""
    jit: Any = torch.jit
    context: AbstractContextManager[None] = jit.optimized_execution(wanted)
    return context


def executed_graph() -> Any:
    """The optimised graph that this thread ran last. torch has no public name for it."""
    return torch._C._last_executed_optimized_graph()


def run_graph(graph: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    """The outputs of a graph; it may be changed by running."""
    single = len(list(graph.outputs())) == 1
    if not single:
        graph.makeMultiOutputIntoTuple()
    found = torch._C._create_function_from_graph("observed", graph)(*inputs)
    return (found,) if single else found


def inline_calls(graph: Any) -> None:
    """Put what methods do in the place of their calls."""
    torch._C._jit_pass_inline(graph)


def tuple_of(*kinds: Any) -> Any:
    """The type of a tuple."""
    return torch._C.TupleType(list(kinds))


def define(module: ScriptModule, source: str) -> None:
    """Give a frozen module a method, written in TorchScript."""
    # `ScriptModule.define` asks for the Python class that a module was scripted from; freezing leaves none.
    kind = torch._C.ConcreteModuleType.from_jit_type(module._c._type())
    module._c._define(kind, source, {"torch": torch}.get)


def eliminate_dead_code(graph: Any) -> None:
    """Take out of a graph what nothing uses."""
    torch._C._jit_pass_dce(graph)


def merge_equal_nodes(graph: Any) -> None:
    """Of nodes that compute the same from the same, leave one (common subexpression elimination)."""
    torch._C._jit_pass_cse(graph)


def knows_operator(name: str) -> bool:
    """Whether an operator of that name, `namespace::name`, is registered in this process."""
    return bool(torch._C._jit_get_schemas_for_operator(name))


def is_tracing() -> bool:
    """Whether this code runs in a trace."""
    return torch._C._get_tracing_state() is not None
