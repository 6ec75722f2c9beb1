"""Parts of docs/coverage.md between two marks, so that each can be written alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness import reports

# In the order of the page, behind what `report.write` puts first.
NAMES = ("generation", "layouts")


def found(text: str, name: str) -> str:
    """The section of a page, with its marks; empty if there is none."""
    match = re.search(f"{_begin(name)}.*{_end(name)}", text, re.DOTALL)
    return match[0] if match else ""


def replaced(text: str, name: str, section: str) -> str:
    """The page with this section, marks included, in place of the one that it has, or at its end."""
    old = found(text, name)
    if not section:
        return text
    return text.replace(old, section) if old else f"{text.rstrip()}\n\n{section}\n"


def write(path: Path, name: str, lines: Iterable[str]) -> None:
    """Write one section of the page, and leave the rest of it as it is."""
    text = path.read_text() if path.exists() else "# What can be exported\n"
    reports.write_whole(path, replaced(text, name, "\n".join([_begin(name), "", *lines, "", _end(name)])))
    print(f"wrote {path}")


def _begin(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"
