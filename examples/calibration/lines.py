"""Print lines of English for --calibration: first sentences of the docstrings in Python's standard library.

Usage: python lines.py [COUNT] > lines.txt

The same COUNT (default 320) gives the same lines with the same release of Python. Lines of your own users' texts
calibrate better: int8 fits its ranges to what it sees.
"""

import ast
import random
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

COUNT = 320
# Characters: a line holds a sentence or two, and is far shorter than any model admits.
SHORTEST, LONGEST = 25, 400


def paragraphs(folder: Path) -> Iterator[str]:
    """The paragraphs of all docstrings below a folder, each on one line."""
    for path in sorted(folder.glob("*.py")) + sorted(folder.glob("*/*.py")):
        if "packages" in path.parent.name or "test" in path.parent.name:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from (" ".join(part.split()) for part in (ast.get_docstring(node) or "").split("\n\n"))


def main(count: int) -> None:
    found = sorted(
        {
            text
            for text in paragraphs(Path(sysconfig.get_path("stdlib")))
            # Sentences: no listings, tables or examples of code.
            if SHORTEST <= len(text) <= LONGEST and re.fullmatch(r"[A-Z][\w ,;:'\"()/.-]+[.]", text, re.ASCII)
        }
    )
    print("\n".join(random.Random(0).sample(found, min(count, len(found)))))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
