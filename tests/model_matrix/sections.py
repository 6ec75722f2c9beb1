"""Parts of docs/coverage.md between two marks, so that each can be written alone, on another day or machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness import reports

# The order on the page; sections of other names, such as fp32-native, stand in the middle.
_FIRST, _LAST = ("fp32", "bf16"), ("generation", "layouts")
_SECTION = re.compile(r"<!-- ([\w-]+) -->\n.*?<!-- end of \1 -->", re.DOTALL)


def write(path: Path, name: str, lines: Iterable[str], head: str | None = None) -> None:
    """Write one section of the page, and leave the others as they are.

    Args:
        path: the page.
        name: of the section, of letters, digits, - and _.
        lines: of the section.
        head: what stands before all sections; None leaves it.
    """
    text = path.read_text() if path.exists() else "# What can be exported\n"
    sections = {found[1]: found[0] for found in _SECTION.finditer(text)}
    sections[name] = "\n".join([f"<!-- {name} -->", "", *lines, "", f"<!-- end of {name} -->"])
    parts = [head if head is not None else text.partition("<!-- ")[0]]
    reports.write_whole(path, "\n\n".join(part.rstrip() for part in [*parts, *_ordered(sections)]) + "\n")
    print(f"wrote section {name} of {path}")


def _ordered(sections: dict[str, str]) -> list[str]:
    def place(name: str) -> tuple[int, str]:
        if name in _FIRST:
            return _FIRST.index(name) - len(_FIRST), name
        return (_LAST.index(name) + 1 if name in _LAST else 0), name

    return [sections[name] for name in sorted(sections, key=place)]
