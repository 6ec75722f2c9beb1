"""Change code by its words: names, numbers, declarations, lines."""

from __future__ import annotations

import random
import re

_WORDS = re.compile(r"\w+(?:\.\w+)*|[^\w\s]|\s+")
NUMBERS = [
    "0",
    "1",
    "-1",
    "2",
    "6",
    "99",
    "255",
    "4294967297",
    "4611686018427387904",
    "-9223372036854775808",
    "1e308",
    "0.5",
    "None",
    "True",
]
DECLARATIONS = [
    *("x : Tensor", "x : int", "x : List[Tensor]", "x : Dict[str, Tensor]", "x : __torch__.A", "x : Optional[int]"),
    *("weights : List[int]", "weights : Tensor", "weights : List[List[Tensor]]", '__parameters__ = ["x"]'),
    *('__annotations__["0"] = Tensor', "x : Final[int] = 3", "x : Tensor = 1", "pass", "x = 3"),
]


def mutate(text: str, dice: random.Random) -> str:
    """The same code with one to four places changed."""
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        choice = dice.random()
        lines = text.splitlines(keepends=True)
        if choice < 0.3:
            text = _word(text, dice)
        elif choice < 0.5:
            text = _number(text, dice)
        elif choice < 0.6:
            del lines[dice.randrange(len(lines))]
            text = "".join(lines)
        elif choice < 0.7:
            lines.insert(dice.randrange(len(lines)), dice.choice(lines))
            text = "".join(lines)
        elif choice < 0.8:
            one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            text = "".join(lines)
        elif choice < 0.95:
            lines.insert(dice.choice([1, 2, 3]), f"  {dice.choice(DECLARATIONS)}\n")
            text = "".join(lines)
        else:
            place = dice.randrange(len(text))
            text = text[:place] + dice.choice(['"', "(", ")", "\n", "\t", "#", "\\", "\0", "é", ":"]) + text[place:]
        if not text:
            break
    return text


def _word(text: str, dice: random.Random) -> str:
    words = _WORDS.findall(text)
    places = [i for i, word in enumerate(words) if not word.isspace()]
    place = dice.choice(places)
    numbers = words[place].isdigit()
    words[place] = dice.choice(NUMBERS) if numbers else words[dice.choice(places)]
    return "".join(words)


def _number(text: str, dice: random.Random) -> str:
    """The same with another number, or one more, in the brackets of a call."""
    places = [match.span() for match in re.finditer(r"(?<=[(\[ =])-?\d[\w.]*(?=[,)\]])|(?<=, )(?=\))|\bNone\b", text)]
    if not places:
        return text
    begin, end = dice.choice(places)
    return text[:begin] + dice.choice(NUMBERS) + text[end:]
