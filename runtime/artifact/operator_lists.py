"""The lists of `operators.def`, which C++ reads too: what the code in a file may name.

Reading them needs no torch; whether the installed torch knows a name does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import OperatorNameError

DATA = Path(__file__).parent.parent / "cpp" / "include" / "exported_model" / "operators.def"

_LINE = re.compile(r"^(OPERATOR|FUNCTION|METHOD|KEYWORD|CLASS)\((?:(\w+), )?([\w.]+)\)$", re.ASCII | re.MULTILINE)
_UNCHECKED = re.compile(r'^UNCHECKED\((\w+), (\w+), "(.+)"\)$', re.ASCII | re.MULTILINE)
_OPERATOR = re.compile(r"[A-Za-z_]\w*::[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Lists:
    """Names by kind; operators as `namespace::name`, classes without `__torch__.torch.classes`.

    `unchecked`: operators of the list that do not check all of their arguments, and what crafted ones can do.
    """

    operators: frozenset[str]
    functions: frozenset[str]
    methods: frozenset[str]
    keywords: frozenset[str]
    classes: frozenset[str]
    unchecked: Mapping[str, str]


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
    return Lists(operators, functions, methods, keywords, classes, unchecked)


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
