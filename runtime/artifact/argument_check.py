"""Arguments that operators do not check themselves: compared with the rules of `operators.def`, before any code runs.

The operators' names were checked before PyTorch read the code (`runtime.artifact.operator_allowlist`); what their
arguments are is known once it has been compiled, at a load, or is about to be saved, at an export.

Some arguments stand for an entry of one of PyTorch's tables (a dtype, a layout, a memory format): a number beyond the
table reads whatever lies behind it. Others divide, or are taken for a smaller number than they are. So the compiled
code may give them constants within bounds, and nothing that it computes. The list says which, by `ENUMERATION`,
`BOUNDS`, `EXCEPT` and `WHOLE`. Nothing is followed from one method into another: what a method gets counts as computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import torch

from runtime.artifact.operator_lists import lists
from runtime.errors import OperatorNotAllowedError
from runtime.host.torchscript import Call, Computed, ScriptModule, calls

_LEAVE = "do not run this file unless you know who wrote it; export the model again"
# Code that no export has and that is not looked into: functions, and objects that are no part of the model.
_ELSEWHERE = {
    "prim::CallFunction": "calls a function that belongs to no class",
    "prim::CallMethod": "calls a method of an object that is no part of the model",
    "prim::CreateObject": "makes an object of a class",
}


# No dtype, float64, float32, float16 and bfloat16.
_FRACTIONS = (None, 7, 6, 5, 15)


class Problem(NamedTuple):
    """What the code does, and what it may do instead."""

    operator: str
    found: str
    expected: str


def check_arguments(module: ScriptModule, origin: str, allow: Collection[str]) -> None:
    """Refuse a module whose code gives an operator what the operator does not check.

    Args:
        module: as it was loaded; nothing of it has run.
        origin: the file, for the error.
        allow: operators that the caller vouches for, with any arguments.

    Raises:
        OperatorNotAllowedError: naming the first argument that is not as it has to be.
    """
    for problem in problems(module, allow):
        raise OperatorNotAllowedError(f"{origin}: its code {problem.found}", problem.expected, _LEAVE)


def problems(module: ScriptModule, allow: Collection[str]) -> Iterator[Problem]:
    """Everything that is not as it has to be, in the order of the code."""
    for call in calls(module):
        if call.operator in _ELSEWHERE:
            yield Problem(call.operator, _ELSEWHERE[call.operator], "what exports of transformers contain")
        elif call.operator not in allow:
            for place, argument in enumerate(call.arguments):
                if (problem := _problem(call, place, argument)) is not None:
                    yield problem


def _problem(call: Call, place: int, argument: str) -> Problem | None:
    if not _is_ruled(call.operator, argument):
        return None
    value = call.value(place)
    expected = expected_instead(call.operator, argument, value, lambda name: call.value(call.arguments.index(name)))
    if not expected:
        return None
    computed = any(isinstance(item, Computed) for item in (value if isinstance(value, list) else [value]))
    shown = "that is computed" if computed else " ".join(str(value).split())[:100]
    return Problem(call.operator, f"calls {call.operator} with {argument} {shown}", expected)


def _is_ruled(operator: str, argument: str) -> bool:
    known, key = lists(), (operator, argument)
    return argument in known.enumerations or key in known.bounds or key in known.exceptions or key in known.whole


def expected_instead(operator: str, argument: str, value: Any, other: Callable[[str], Any]) -> str:
    """What an operator may be given in place of this value; empty where it may be given the value itself.

    `other` gives the value of another argument, by its name.
    """
    known, key = lists(), (operator, argument)
    table, bounds = known.enumerations.get(argument), known.bounds.get(key)
    if table is not None and value != Computed(table.source) and not _within(value, table.lowest, table.highest):
        return _constant_from(table.lowest, table.highest)
    if bounds is not None and not _within(value, *bounds):
        return _constant_from(*bounds)
    if any(_has(value, number) for number in known.exceptions.get(key, ())):
        return "another number"
    fraction = isinstance(value, float) and not value.is_integer()
    if fraction and key in known.whole and other(known.whole[key]) not in _FRACTIONS:
        return "a whole number, or a dtype that has fractions"
    return ""


def _has(value: Any, number: float) -> bool:
    """Whether a constant is this number, or is a tensor of whole numbers with it among them."""
    if isinstance(value, torch.Tensor):
        whole = not value.is_floating_point() and not value.is_complex()
        return whole and bool((value == number).any())
    return isinstance(value, (int, float)) and value == number


def _constant_from(lowest: float, highest: float) -> str:
    return f"a constant from {lowest:.10g} to {highest:.10g}" if lowest <= highest else "None"


def _within(value: Any, lowest: float, highest: float) -> bool:
    """Texts, such as the padding `same`, are no numbers, and operators compare them themselves."""
    if isinstance(value, list):
        return all(_within(item, lowest, highest) for item in value)
    return value is None or isinstance(value, str) or (isinstance(value, (int, float)) and lowest <= value <= highest)
