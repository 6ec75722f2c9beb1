"""What the code in an artifact names: its operators, functions, methods, keywords and classes.

TorchScript writes code in a small part of Python's syntax. This module reads exactly that part, token by token, and
reports everything else as a problem, so that no two readers can understand a file differently. It decides nothing:
`runtime.artifact.operator_allowlist` compares the names with the lists in `operators.def`. The C++ runtime follows the
same rules.

The rules, in the order of the code below:

1. ASCII, with spaces and line ends alone for white space; line ends inside brackets are space. Tokens are names with
   dots (`a.b.c`), members (`.b.c`, directly behind a bracket), decimal numbers with their sign, `inf`, `nan`, strings
   on one line, `->`, and one of `( ) [ ] { } , : =`. A value never follows a value.
2. Limits: brackets match and nest at most 100 deep, lines are indented by at most 100 spaces, a name has at most 32
   parts, and at most 16 brackets or members follow each other directly. TorchScript's own reader is recursive.
3. Words: `class`, `def`, `if`, `else`, `for`, `return` and `pass` begin a line; `in` stands in a `for` line; `None`,
   `NoneType`, `True` and `False` are values. All other words of Python or TorchScript are problems. The only base of a
   class is `Module`.
4. `torch.NAME` is the operator `aten::NAME`, `ops.SPACE.NAME` is `SPACE::NAME`, called or not. `torch`, `ops`,
   `CONSTANTS` and `__torch__` stand for nothing else. A name that begins with `__torch__.torch.classes.` is a class of
   C++; other names that begin with `__torch__.` are the file's own.
5. What stands before `(` is called: a name is a function, the last part of a longer name or of a member is a method.
   Nothing else is called.
6. `NAME =` in the brackets of a call is a keyword. `=` outside brackets follows names with commas between them, or one
   name and its type. These are bindings, as are the names of a `for`, of parameters, of functions and of classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

# What was found: `problem` is always refused, the other kinds are looked up by name.
Kind = Literal["operator", "function", "method", "keyword", "class", "binding", "problem"]
Use = tuple[Kind, str]
Token = tuple[str, str]

MAX_NESTING = 100
MAX_PARTS = 32
MAX_STEPS = 16

_NAME = r"[A-Za-z_][A-Za-z_0-9]*"
_TOKEN = re.compile(
    rf"(?P<line>\n+ *)|(?P<space> +)|"
    r"(?P<value>-?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?j?|inf|nan)(?![A-Za-z_0-9.])|"
    r"""\"(?:[^\"\\\n]|\\[^\n])*\"|'(?:[^'\\\n]|\\[^\n])*')|"""
    rf"(?P<name>{_NAME}(?:\.{_NAME})*)|(?P<member>(?:\.{_NAME})+)|(?P<sign>->|[()\[\]{{}},:=])|(?P<other>[^\n])"
)
_ENDS_VALUE = ("value", "name", "member", ")", "]", "}")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_RESERVED = ("torch", "ops", "CONSTANTS", "__torch__")
_STATEMENTS = {"class", "def", "if", "else", "for", "return", "pass"}
_VALUES = {"None", "NoneType", "True", "False"}
_OTHER_WORDS = {
    *("and", "or", "not", "is", "while", "elif", "global", "nonlocal", "raise", "assert", "break", "continue", "del"),
    *("import", "from", "with", "as", "lambda", "yield", "async", "await", "try", "except", "finally", "Ellipsis"),
}


def read_source(text: bytes) -> Iterator[Use]:
    """Everything that a record of code names, in order, some of it more than once.

    A `problem` is the last thing that is found: what comes after it is not read.
    """
    if not text.isascii():
        yield "problem", "characters beyond ASCII"
        return
    reader = _Reader()
    stream = tokens(text.decode("ascii"))
    current = next(stream)
    while current[0] != "end":
        following = next(stream)
        for use in reader.take(*current, following[1]):
            yield use
            if use[0] == "problem":
                return
        current = following
    if reader.brackets:
        yield "problem", "a bracket that is not closed"


def tokens(text: str) -> Iterator[Token]:
    """Kind and text of each token, and an `end`; inside brackets, ends of lines are space."""
    depth = 0
    for match in _TOKEN.finditer(text):
        kind, word = str(match.lastgroup), match.group()
        if kind == "sign":
            depth += (word in "([{") - (word in ")]}")
        if kind != "space" and not (kind == "line" and depth > 0):
            yield kind, word
    yield "end", ""


class _Reader:
    """One token after the other, with what has to be known of those before."""

    def __init__(self) -> None:
        # Each open bracket: its sign, whether it is a call's, and how many steps led to it.
        self.brackets: list[tuple[str, bool, int]] = []
        self._start_line()

    def _start_line(self) -> None:
        self._statement = ""
        # The names so far, which `=` or `in` would bind; None once there was anything but names and commas.
        self._targets: list[str] | None = []
        # Whether the line gives its first name a type, `x : T`, and no value yet.
        self._declared = False
        # The token before: "" at the start, a sign itself, else its kind, or `word` for one of the language's.
        self._before = ""
        # How many brackets and members follow each other here.
        self._steps = 0

    def take(self, kind: str, word: str, following: str) -> Iterator[Use]:
        """What this token names, `following` being the next one."""
        before, self._before = self._before, word if kind == "sign" else kind
        if kind == "line":
            self._start_line()
            if len(word.strip("\n")) > MAX_NESTING:
                yield "problem", "a line that is indented too far"
        elif kind == "other":
            yield "problem", f"the character {word!r}, which exports do not use"
        elif kind == "sign":
            yield from self._sign(word, before)
        elif kind == "member":
            self._steps += 1
            if before not in (")", "]") or self._steps > MAX_STEPS or word.count(".") > MAX_PARTS:
                yield "problem", f"the member {word}"
            elif following == "(":
                yield "method", word.rpartition(".")[2]
        elif before in _ENDS_VALUE and word != "in":
            yield "problem", f"{word} directly behind a value"
        else:
            self._steps = 0
            if kind == "value" or word in _VALUES:
                self._before, self._targets = "value", None
            elif word in _STATEMENTS or word in _OTHER_WORDS or word == "in":
                yield from self._word(word, before)
            else:
                yield from self._name(word, before, following)

    def _word(self, word: str, before: str) -> Iterator[Use]:
        self._before = "word"
        if word == "in" and self._statement == "for" and self._targets and not self.brackets:
            yield from (("binding", name) for name in self._targets)
            self._targets = None
        elif word in _STATEMENTS and before == "" and not self.brackets:
            self._statement, self._targets = word, [] if word == "for" else None
        else:
            yield "problem", f"the word {word}, which exports do not use there"

    def _name(self, name: str, before: str, following: str) -> Iterator[Use]:
        parts = name.split(".")
        called, named = following == "(", following == "=" and bool(self.brackets)
        if len(parts) > 1 or called:
            self._targets = None
        elif self._targets is not None:
            self._targets.append(name)
        if len(parts) > MAX_PARTS or (len(parts) == 1 and name in _RESERVED):
            yield "problem", f"the name {name[:100]} on its own"
        elif named:
            keyword = len(parts) == 1 and before in ("(", ",") and self.brackets[-1][1]
            yield ("keyword", name) if keyword else ("problem", f"{name[:100]} = in a place where no keyword stands")
        elif len(parts) == 1:
            yield from self._single(name, before, following)
        elif parts[0] == "torch" or parts[0] == "ops":
            whole = len(parts) == (2 if parts[0] == "torch" else 3)
            yield ("operator", "::".join(["aten", *parts[1:]][-2:])) if whole else ("problem", f"the name {name}")
        elif parts[:3] == ["__torch__", "torch", "classes"]:
            yield "class", ".".join(parts[3:])
        elif called and parts[0] != "__torch__":
            yield "method", parts[-1]

    def _single(self, name: str, before: str, following: str) -> Iterator[Use]:
        parameter = self._statement == "def" and len(self.brackets) == 1 and before in ("(", ",")
        declared = before == "" and following == ":"
        self._declared = self._declared or declared
        if self._statement == "class" and self.brackets:
            if name != "Module":
                yield "problem", f"a class that is a {name}"
        elif (before == "word" and self._statement in ("class", "def")) or parameter or declared:
            yield "binding", name
        elif following == "(":
            yield "function", name

    def _sign(self, sign: str, before: str) -> Iterator[Use]:
        if sign in "([{":
            yield from self._open(sign, before)
        elif sign in _PAIRS:
            opened, _, self._steps = self.brackets.pop() if self.brackets else ("", False, 0)
            if opened != _PAIRS[sign]:
                yield "problem", f"a bracket {sign} that was not opened"
        elif sign == "=" and not self.brackets:
            if self._targets and before in ("name", ","):
                yield from (("binding", name) for name in self._targets)
            elif not self._declared:
                yield "problem", "an assignment to something other than names"
            self._targets, self._declared = None, False
        elif sign == "=" and before != "name":
            yield "problem", "= in a place where no keyword stands"
        elif sign != "," or self.brackets:
            self._targets = self._targets if self.brackets else None

    def _open(self, sign: str, before: str) -> Iterator[Use]:
        self._targets = None
        step = sign == "[" and before in ("name", "member", ")", "]")
        steps = self._steps + step
        call = sign == "(" and before in ("name", "member")
        if before in _ENDS_VALUE and not step and not call:
            yield "problem", f"{sign} directly behind a value"
        elif len(self.brackets) >= MAX_NESTING or steps > MAX_STEPS:
            yield "problem", "brackets that are nested too deep"
        self.brackets.append((sign, call and self._statement not in ("class", "def"), steps))
        self._steps = 0
