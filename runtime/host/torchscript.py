"""The only module that calls `torch.jit`, for every release of torch from 1.13 on.

Errors of torch pass through unchanged; the callers turn them into errors of this project.

Newer releases of torch deprecate TorchScript, with a warning at every call, and recommend torch.export. The user of an
artifact cannot act on these warnings, so they are suppressed here; docs/decisions/files.md says what happens when
torch.jit is removed.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, Any, NamedTuple

import torch

# Private to torch.jit in every release; imported only here, so that a change in torch affects one line.
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
    "around",
    "as_if_tracing",
    "calls",
    "define",
    "eliminate_dead_code",
    "executed_graphs",
    "with_python_warnings",
    "freeze",
    "inline_calls",
    "is_tracing",
    "knows_operator",
    "load",
    "merge_equal_nodes",
    "optimized_execution",
    "python_calls",
    "run_graph",
    "save",
    "script",
    "trace",
    "tuple_of",
]

ScriptModule = torch.jit.ScriptModule
# The Python exceptions that C++ errors in a file's code or pickles become. What the code itself raises is the first:
# it is no RuntimeError.
FAILURES = (
    torch.jit.Error,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OSError,
    MemoryError,
    ArithmeticError,
)

TENSOR = torch._C.TensorType.get()
INTEGER = torch._C.IntType.get()
# Types of lists.
INTEGERS = torch._C.ListType.ofInts()
TENSORS = torch._C.ListType.ofTensors()

# Classes of C++. The check of the code's text decides which of them, and which of their methods, it may name.
_CPP_CLASSES = "__torch__.torch.classes."

# The first release of torch with `example_kwarg_inputs`.
DICT_SINCE = (2, 0)


@contextmanager
def _without_deprecation_warnings() -> Iterator[None]:
    """Suppress the deprecation warnings of torch.jit; others pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield


def with_python_warnings(call: Callable[[], Any]) -> Any:
    """Call a function so that warnings from its C++ code go through Python's warning filters; return its result.

    PyTorch redirects C++ warnings to Python during each call of a tensor function. Loading, tracing and custom
    operators are not such calls, and their warnings go straight to standard error. So the function is called from
    within a tensor function; an active `TorchFunctionMode` is switched off meanwhile.
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

    `torch.jit.trace` does not check the trace: the written file is verified later, in a new process, at several shapes.
    """
    inputs: dict[str, Any]
    inputs = {"example_inputs": example} if isinstance(example, tuple) else {"example_kwarg_inputs": dict(example)}

    def traced() -> Any:
        # Entered within `with_python_warnings`: a mode of torch functions would take its own call for the model's.
        with context or nullcontext():
            return torch.jit.trace(module, check_trace=False, **inputs)

    with _without_deprecation_warnings():
        found: ScriptModule = with_python_warnings(traced)
    return found


@contextmanager
def as_if_tracing() -> Iterator[None]:
    """Make `torch.jit.is_tracing` true, so that models take the same branches as in a trace.

    For example, transformers omits an attention mask without zeros, but never in a trace.
    """
    jit: Any = torch.jit
    original = jit.is_tracing
    jit.is_tracing = lambda: True
    try:
        yield
    finally:
        jit.is_tracing = original


def script(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled to TorchScript, so that a trace takes its loops and branches as they are."""
    with _without_deprecation_warnings():
        compiled: Callable[..., Any] = torch.jit.script(function)
    return compiled


def freeze(module: ScriptModule) -> ScriptModule:
    """The module with its weights turned into constants of the graph."""
    with _without_deprecation_warnings():
        frozen: ScriptModule = torch.jit.freeze(module)
    return frozen


def save(module: ScriptModule, file: IO[bytes], extra_files: Mapping[str, str | bytes]) -> None:
    """Write the archive, with `extra_files` beside the code."""
    with _without_deprecation_warnings():
        torch.jit.save(module, file, _extra_files=dict(extra_files))


def load(file: str | IO[bytes]) -> ScriptModule:
    """Load the module to the CPU."""
    with _without_deprecation_warnings():
        module: ScriptModule = with_python_warnings(lambda: torch.jit.load(file, map_location="cpu"))
    return module


def python_calls(frozen: ScriptModule) -> list[str]:
    """The names of the Python functions that a frozen module calls; no archive can store such calls."""
    blocks: list[Any] = [frozen.graph]
    found: list[str] = []
    while blocks:
        for node in blocks.pop().nodes():
            blocks.extend(node.blocks())
            if node.kind() == "prim::PythonOp":
                found.append(str(node.pyname()))
    return found


class Computed(NamedTuple):
    """An argument that is not a constant, with the operator that computes it."""

    operator: str


class Call(NamedTuple):
    """A call of an operator in a graph; `node` is torch's object."""

    operator: str
    arguments: tuple[str, ...]
    node: Any

    def value(self, place: int) -> Any:
        """The argument at this position: a constant, a list of constants that nothing else uses, or `Computed`."""
        value = self.node.inputsAt(place)
        # If something else uses the list, it could change its items.
        if value.node().kind() == "prim::ListConstruct" and len(value.uses()) == 1:
            return [_constant(item) for item in value.node().inputs()]
        return _constant(value)


def _constant(value: Any) -> Any:
    kind = value.node().kind()
    return value.toIValue() if kind == "prim::Constant" else Computed(str(kind))


def calls(module: ScriptModule) -> Iterator[Call]:
    """Every call in the methods of a module and of its submodules, each class once, in the order of their code.

    Calls of functions, of constructors and of methods of other classes have no argument names. Calls are not inlined:
    a few methods that call each other twice would become an endless graph.
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
            # Asking every node for its blocks would take longer than everything else.
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


def optimized_execution(wanted: bool) -> AbstractContextManager[None]:
    """Switch TorchScript's optimisation, which happens during the first calls, on or off for this thread.

    A module keeps one graph for each of the two.
    """
    jit: Any = torch.jit
    context: AbstractContextManager[None] = jit.optimized_execution(wanted)
    return context


def executed_graphs(module: ScriptModule) -> list[Any]:
    """The optimised graph that this thread ran last, and the graphs of the submodules whose `forward` it calls.

    Torch has no public function for the first. The second are as the file holds them: the executor, which leaves such
    calls as they are, tells nobody what it made of them.
    """
    graph: Any = torch._C._last_executed_optimized_graph()
    if graph is None:
        return []
    called = [
        node.inputsAt(0).node().s("name")
        for node in graph.nodes()
        if node.kind() == "prim::CallMethod"
        and node.s("name") == "forward"
        and node.inputsAt(0).node().kind() == "prim::GetAttr"
    ]
    parts = dict(torch._C.ModuleDict(module._c).items())
    return [graph, *(parts[name]._get_method("forward").graph for name in called if name in parts)]


def run_graph(graph: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    """Run a graph, which may change it, and return its outputs."""
    single = len(list(graph.outputs())) == 1
    if not single:
        graph.makeMultiOutputIntoTuple()
    found = torch._C._create_function_from_graph("observed", graph)(*inputs)
    return (found,) if single else found


def inline_calls(graph: Any) -> None:
    """Replace calls of methods by their bodies."""
    torch._C._jit_pass_inline(graph)


def tuple_of(*kinds: Any) -> Any:
    """The type of a tuple with elements of these types."""
    return torch._C.TupleType(list(kinds))


def define(module: ScriptModule, source: str) -> None:
    """Add a method, written in TorchScript, to a frozen module."""
    # `ScriptModule.define` needs the Python class that the module was scripted from, which a frozen module lacks.
    kind = torch._C.ConcreteModuleType.from_jit_type(module._c._type())
    module._c._define(kind, source, {"torch": torch, "ValueError": ValueError}.get)


def around(module: ScriptModule) -> ScriptModule:
    """A module without methods that holds this one as `inner`; `define` gives it some."""

    # A class for each module: TorchScript keeps one type per class of Python, with one type of `inner`.
    class Whole(torch.nn.Module):
        pass

    with _without_deprecation_warnings():
        whole: ScriptModule = torch.jit.script(Whole().eval())
    # Not as a module in Python: all frozen ones have the same class there.
    whole._c._register_attribute("inner", module._c._type(), module._c)
    return whole


def eliminate_dead_code(graph: Any) -> None:
    """Remove unused nodes from a graph."""
    torch._C._jit_pass_dce(graph)


def merge_equal_nodes(graph: Any) -> None:
    """Merge nodes that compute the same from the same inputs (common subexpression elimination)."""
    torch._C._jit_pass_cse(graph)


def knows_operator(name: str) -> bool:
    """Whether an operator of this name, `namespace::name`, is registered in this process."""
    return bool(torch._C._jit_get_schemas_for_operator(name))


def is_tracing() -> bool:
    """Whether this code is being traced."""
    return torch._C._get_tracing_state() is not None
