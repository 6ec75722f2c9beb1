"""The lists of `operators.def`, which C++ reads too: what the code in a file may name.

Reading them needs no torch; whether the installed torch knows a name does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.errors import OperatorNameError

DATA = Path(__file__).parent.parent / "cpp" / "include" / "exported_model" / "operators.def"

_LINE = re.compile(r"^(OPERATOR|FUNCTION|METHOD|KEYWORD|CLASS)\((?:(\w+), )?([\w.]+)\)$", re.ASCII | re.MULTILINE)
_UNCHECKED = re.compile(r'^UNCHECKED\((\w+), (\w+), "(.+)"\)$', re.ASCII | re.MULTILINE)
_NUMBER = r"(-?[0-9.]+)"
_ENUMERATION = re.compile(rf"^ENUMERATION\((\w+), {_NUMBER}, {_NUMBER}, (\w+)\)$", re.ASCII | re.MULTILINE)
_BOUNDS = re.compile(rf"^BOUNDS\((\w+), (\w+), (\w+), {_NUMBER}, {_NUMBER}\)$", re.ASCII | re.MULTILINE)
_WHOLE = re.compile(r"^WHOLE\((\w+), (\w+), (\w+), (\w+)\)$", re.ASCII | re.MULTILINE)
_EXCEPT = re.compile(rf"^EXCEPT\((\w+), (\w+), (\w+), {_NUMBER}\)$", re.ASCII | re.MULTILINE)
_OPERATOR = re.compile(r"[A-Za-z_]\w*::[A-Za-z_]\w*", re.ASCII)


class Enumeration(NamedTuple):
    """An argument that stands for an entry of a table: a constant in these bounds, or what `source` gives."""

    lowest: float
    highest: float
    source: str


@dataclass(frozen=True)
class Lists:
    """Names by kind; operators as `namespace::name`, classes without `__torch__.torch.classes`.

    `unchecked`: operators of the list that do not check all of their arguments, and what crafted ones can do.
    `enumerations`: by the name of the argument. `bounds`: the lowest and the highest number, by operator and argument.
    `exceptions`: numbers that are none, by operator and argument.
    `whole`: the argument with the dtype for which a number has to be whole, by operator and argument.
    """

    operators: frozenset[str]
    functions: frozenset[str]
    methods: frozenset[str]
    keywords: frozenset[str]
    classes: frozenset[str]
    unchecked: Mapping[str, str]
    enumerations: Mapping[str, Enumeration]
    bounds: Mapping[tuple[str, str], tuple[float, float]]
    exceptions: Mapping[tuple[str, str], frozenset[float]]
    whole: Mapping[tuple[str, str], str]


@functools.cache
def lists() -> Lists:
    """What stands in the file."""
    found: dict[str, set[str]] = {}
    text = DATA.read_text("ascii")
    for macro, space, name in _LINE.findall(text):
        found.setdefault(macro, set()).add(f"{space}::{name}" if space else name)
    unchecked = {f"{space}::{name}": what for space, name, what in _UNCHECKED.findall(text)}
    kinds = ("OPERATOR", "FUNCTION", "METHOD", "KEYWORD", "CLASS")
    operators, functions, methods, keywords, classes = (frozenset(found.get(kind, ())) for kind in kinds)
    enumerations = {
        argument: Enumeration(float(lowest), float(highest), f"prim::{source}")
        for argument, lowest, highest, source in _ENUMERATION.findall(text)
    }
    bounds = {
        (f"{space}::{name}", argument): (float(lowest), float(highest))
        for space, name, argument, lowest, highest in _BOUNDS.findall(text)
    }
    exceptions: dict[tuple[str, str], frozenset[float]] = {}
    for space, name, argument, number in _EXCEPT.findall(text):
        key = (f"{space}::{name}", argument)
        exceptions[key] = exceptions.get(key, frozenset()) | {float(number)}
    whole = {(f"{space}::{name}", argument): dtype for space, name, argument, dtype in _WHOLE.findall(text)}
    return Lists(operators, functions, methods, keywords, classes, unchecked, enumerations, bounds, exceptions, whole)


def check_names(names: Collection[str]) -> frozenset[str]:
    """The names of operators, as a caller gave them in `allow_operators`.

    Raises:
        OperatorNameError: a name that is not written `namespace::name`, or a text in place of a list of them.
    """
    expected = 'a list of names such as "aten::segment_reduce", without overload or arguments'
    if isinstance(names, (str, bytes)):
        raise OperatorNameError(f"allow_operators is {names!r}", expected)
    for name in names:
        if not isinstance(name, str) or not _OPERATOR.fullmatch(name):
            raise OperatorNameError(f"allow_operators has {name!r}", expected)
    return frozenset(names)


def check_known(names: Collection[str]) -> None:
    """Refuse names of operators that this torch does not have; those of other libraries have to be loaded by now.

    Raises:
        OperatorNameError: naming the first one.
    """
    from runtime.host import torchscript

    for name in sorted(names):
        if not torchscript.knows_operator(name):
            raise OperatorNameError(
                f"allow_operators has {name!r}",
                "the name of an operator that the installed torch has",
                "compare it with the name in the error message",
            )
