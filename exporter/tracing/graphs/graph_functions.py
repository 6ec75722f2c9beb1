"""Functions that a graph calls: each is in the file once, as a method of the module, however often it is called.

Written into the graph at each place instead, the few lines of an attention would be most of the code of a large model,
and TorchScript reads code slowly.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import torch

from exporter.tracing.graphs.ir import Node, Value, graph_of
from runtime.host.torchscript import TENSOR, ScriptModule, define

# Reserved for the exporter's own functions: files contain their names, and operators.def lists them.
PREFIX = "em_"


def call(
    module: ScriptModule, before: Node, function: Callable[..., Any], arguments: Sequence[Value], kind: Any = TENSOR
) -> Value:
    """Insert a call of a function in front of a node; returns its result.

    Args:
        module: frozen; the function, and those of its own Python module that it calls, become methods.
        before: a node of its graph.
        function: TorchScript that uses only torch; its name must be unique among these methods.
        arguments: values of the graph, one per parameter.
        kind: the type of the result.
    """
    name = PREFIX + function.__name__
    _give(module, name, function)
    node = graph_of(module).create("prim::CallMethod", [next(iter(graph_of(module).inputs())), *arguments], 1)
    node.s_("name", name)
    node.output().setType(kind)
    node.insertBefore(before)
    return node.output()


def define_method(module: ScriptModule, name: str, function: Callable[..., Any], constants: Sequence[Any]) -> None:
    """Add a method that calls a function with the method's one argument, then constants.

    Args:
        module: frozen; the function, and those that it calls, become methods, as for `call`.
        name: of the method.
        function: TorchScript that uses only torch, of a tensor and of what `constants` are.
        constants: numbers and lists, which become literals, and tensors, which become attributes.
    """
    inner = PREFIX + function.__name__
    _give(module, inner, function)
    arguments = ["given"]
    for number, value in enumerate(constants):
        if isinstance(value, torch.Tensor):
            arguments.append(f"self.{name}_{number}")
            module._c._register_attribute(f"{name}_{number}", TENSOR, value)
        else:
            arguments.append(repr(value))
    define(module, f"def {name}(self, given: Tensor):\n    return self.{inner}({', '.join(arguments)})\n")


def _give(module: ScriptModule, name: str, function: Callable[..., Any]) -> None:
    if module._c._has_method(name):
        return
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    tree.name = name
    tree.args.args.insert(0, ast.arg("self"))
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    for node in called:
        assert isinstance(node.func, ast.Name)
        inner = function.__globals__.get(node.func.id)
        if inspect.isfunction(inner):
            _give(module, PREFIX + node.func.id, inner)
            node.func = ast.Attribute(ast.Name("self", ast.Load()), PREFIX + node.func.id, ast.Load())
    # The docstring is not needed in the file.
    tree.body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    define(module, ast.unparse(ast.fix_missing_locations(tree)) + "\n")
