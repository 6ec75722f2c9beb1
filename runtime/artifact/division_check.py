"""Whole numbers that PyTorch would divide while it reads a file, before anything can be compared.

PyTorch computes what depends on nothing but constants as soon as it reads code, and a whole number divided by zero, or
the smallest of all by -1, ends the process there. So one number of each division has to depend on an input or a weight,
or the divisor is a plain number other than 0 and -1. The names in the text were checked before.

A name depends on an input if it is a parameter, what a `for` counts, or bound by nothing but lines that compute from
such a name or from a weight. In those lines stand calls of operators, lists, and no tuple: of a tuple, PyTorch takes
the items apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from runtime.artifact.code_reader import Token, tokens

# Of all operators on the list that take plain numbers, these two end the process (tests/fuzz_operators.py).
_DIVISIONS = {
    f"{space}.{name}": f"aten::{name}" for space in ("torch", "ops.aten") for name in ("remainder", "floordiv")
}
_CASTS = ("int", "float", "bool")
_TYPED = ("annotate", "unchecked_cast")
_OPEN, _CLOSE = ("(", "[", "{"), (")", "]", "}")


def division_problems(text: str, allow: Collection[str] = ()) -> Iterator[str]:
    """Divisions that could be computed while the code is read, except of operators that are allowed."""
    divisions = [written for written, operator in _DIVISIONS.items() if operator not in allow]
    if not any(written in text for written in divisions):
        return
    names = _Names()
    for line in _lines(text):
        for place, (_, word) in enumerate(line):
            if word in divisions and line[place + 1 : place + 2] == [("sign", "(")]:
                given = line[place + 2 : _end(line, place + 1)]
                if not _plain_divisor(given) and not names.depends(given):
                    yield f"a {word} of constants alone"
        names.read(line)


def _lines(text: str) -> Iterator[list[Token]]:
    line: list[Token] = []
    for token in tokens(text):
        if token[0] not in ("line", "end"):
            line.append(token)
        elif line:
            yield line
            line = []


def _end(line: Sequence[Token], opened: int) -> int:
    """The place of the bracket that closes this one."""
    depth = 0
    for place in range(opened, len(line)):
        word = line[place][1]
        depth += (word in _OPEN) - (word in _CLOSE)
        if depth == 0:
            return place
    return len(line)


def _plain_divisor(given: Sequence[Token]) -> bool:
    """Whether the last argument is a whole number other than 0 and -1."""
    kind, word = given[-1] if given else ("", "")
    last = len(given) > 1 and given[-2] == ("sign", ",")
    return last and kind == "value" and word.lstrip("-").isdigit() and int(word[:20]) not in (0, -1)


class _Names:
    """Which names of the function so far depend on an input."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        # Names that some line binds to anything else.
        self._others: set[str] = set()

    def read(self, line: Sequence[Token]) -> None:
        """Take in what a line binds."""
        words = [word for _, word in line]
        if words[0] == "def":
            self._known, self._others = set(_parameters(line)), set()
        elif words[0] == "for" and "in" in words:
            self._bind(line[1 : words.index("in")], True)
        else:
            equals = _assignment(words)
            if equals > 0:
                targets = line[:1] if words[1] == ":" else line[:equals]
                self._bind(targets, self.depends(line[equals + 1 :]))

    def _bind(self, targets: Sequence[Token], depends: bool) -> None:
        for kind, word in targets:
            if kind == "name":
                (self._known if depends else self._others).add(word)
        self._known -= self._others

    def depends(self, value: Sequence[Token]) -> bool:
        """Whether no part of this is a tuple or is known without running, and one comes from an input or a weight."""
        found, place = False, 0
        while place < len(value):
            kind, word = value[place]
            before = value[place - 1] if place else ("", "")
            after = value[place + 1][1] if place + 1 < len(value) else ""
            if kind == "name" and after == "(":
                if word in _TYPED:
                    place = _behind_type(value, place + 1)
                    continue
                method = word.split(".")[0] in self._known
                if not (method or word in _CASTS or word == "ops.prim.NumToTensor" or _is_operator(word)):
                    return False
                found = found or method
            elif kind == "name" and after != "=":
                found = found or word.startswith("CONSTANTS.") or word.split(".")[0] in self._known
            elif word == "{" or (word == "(" and before[0] not in ("name", "member") and not _single(value, place)):
                return False
            place += 1
        return found


def _is_operator(name: str) -> bool:
    return name.startswith("torch.") or (name.startswith("ops.") and not name.startswith("ops.prim."))


def _single(value: Sequence[Token], opened: int) -> bool:
    """Whether one token stands in these brackets, as in `(self).method()`."""
    return value[opened + 2 : opened + 3] == [("sign", ")")]


def _behind_type(value: Sequence[Token], opened: int) -> int:
    """The place behind the first argument of a call, which is a type."""
    depth = 0
    for place in range(opened, len(value)):
        word = value[place][1]
        depth += (word in _OPEN) - (word in _CLOSE)
        if depth == 0 or (depth == 1 and word == ","):
            return place + 1
    return len(value)


def _parameters(line: Sequence[Token]) -> Iterator[str]:
    depth = 0
    for place, (kind, word) in enumerate(line):
        depth += (word in _OPEN) - (word in _CLOSE)
        if kind == "name" and depth == 1 and line[place - 1][1] in ("(", ","):
            yield word


def _assignment(words: Sequence[str]) -> int:
    """The place of the `=` outside brackets; 0 where there is none."""
    depth = 0
    for place, word in enumerate(words):
        depth += (word in _OPEN) - (word in _CLOSE)
        if depth == 0 and word == "=":
            return place
    return 0
