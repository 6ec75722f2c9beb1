"""Addresses of packed weights in code for IPEX: each is taken from a constant of the file, and from nowhere else.

IPEX's operators get their weights as a tensor that holds an address in memory, the fourth argument, and follow it. A
file could give them any number. So the argument has to be `(CONSTANTS.x).get_data_handle()`, or a name that such a line
assigns and nothing else in the function binds. Which class the constant has is not compared with the operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from runtime.source import Token, tokens

_OPERATORS = "ops.torch_ipex."
_PLACE = 3


def address_problems(text: str) -> Iterator[str]:
    """What is wrong with the addresses in code that `runtime.source` has read without a problem."""
    if _OPERATORS not in text:
        return
    function: list[Token] = []
    for token in tokens(text):
        if token in (("name", "def"), ("end", "")):
            yield from _in_function(function)
            function = []
        function.append(token)


def _in_function(code: Sequence[Token]) -> Iterator[str]:
    words = [word.strip(" ") if kind == "line" else word for kind, word in code]
    taken = {
        words[i] for i in range(1, len(words)) if words[i + 1 : i + 2] == ["="] and _is_taken(words[i + 2 : i + 9])
    }
    # Every place where a name stands first in a line would bind it: no more than one.
    first = Counter(word for word, before in zip(words[1:], words, strict=False) if before.startswith("\n"))
    listed = _targets(words) if taken else set()
    for name in taken:
        if first[name] > 1 or name in listed:
            yield f"the address {name}, which is assigned twice"
            return
    for place, word in enumerate(words):
        if word.startswith(_OPERATORS) and words[place + 1 : place + 2] == ["("]:
            argument = _argument(words, place + 2)
            if not (argument[1:] == [] and argument[:1] and argument[0] in taken) and not _is_taken([*argument, "\n"]):
                yield f"a call of {word} with an address that is not taken from a constant"


def _is_taken(words: Sequence[str]) -> bool:
    """Whether these are `(CONSTANTS.x).get_data_handle()` and the end of a line."""
    return (
        len(words) == 7
        and [words[0], *words[2:6]] == ["(", ")", ".get_data_handle", "(", ")"]
        and words[1].startswith("CONSTANTS.")
        and words[1].count(".") == 1
        and words[6].startswith("\n")
    )


def _targets(words: Sequence[str]) -> set[str]:
    """Names that a line assigns to behind its first, and names of loops and parameters."""
    found: set[str] = set()
    line: list[str] = []
    for word in [*words, "\n"]:
        if not word.startswith("\n"):
            line.append(word)
            continue
        if line[:1] == ["def"]:
            found.update(name for name, sign in zip(line, line[1:], strict=False) if sign == ":")
        stop = line.index("in") if line[:1] == ["for"] else line.index("=") if "=" in line else 0
        found.update(line[1:stop])
        line = []
    return found


def _argument(words: Sequence[str], start: int) -> list[str]:
    """The words of one argument of a call, `start` being behind its bracket."""
    found: list[str] = []
    depth = place = 0
    for word in words[start:]:
        depth += (word in "([{") - (word in ")]}") if len(word) == 1 else 0
        if depth < 0:
            break
        if word == "," and depth == 0:
            place += 1
        elif place == _PLACE:
            found.append(word)
    return found
