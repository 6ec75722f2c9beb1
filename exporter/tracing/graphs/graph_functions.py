"""Functions that a graph calls: they stand in the file once, as methods of its module, however often they are called.

In: a frozen module, a function of plain TorchScript, values of the module's graph. Out: the value that a call gives.

Written into the graph at each place instead, the few lines of an attention make most of the code of a large model, and
TorchScript reads code slowly.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from runtime.host.torchscript import TENSOR, ScriptModule, define

# Reserved for the exporter's own functions: their names stand in files, and operators.def lists them.
PREFIX = "em_"


def call(
    module: ScriptModule, before: Any, function: Callable[..., Any], arguments: Sequence[Any], kind: Any = TENSOR
) -> Any:
    """Call a function in front of a node.

    Args:
        module: frozen; it is given the function, and those of its own module that it calls, as methods.
        before: a node of its graph.
        function: TorchScript with torch alone; a name of its own among the functions that the module is given.
        arguments: values of the graph, one for each parameter.
        kind: the type of what it returns.
    """
    name = PREFIX + function.__name__
    _give(module, name, function)
    node = module.graph.create("prim::CallMethod", [next(iter(module.graph.inputs())), *arguments], 1)
    node.s_("name", name)
    node.output().setType(kind)
    node.insertBefore(before)
    return node.output()


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
    # Its words are for readers of this package.
    tree.body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    define(module, ast.unparse(ast.fix_missing_locations(tree)) + "\n")
