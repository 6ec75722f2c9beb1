"""Tables of text, as Markdown and for the terminal, and how numbers stand in them.

The only module that imports tabulate.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

DASH = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> list[str]:
    """A Markdown table, line by line.

    Args:
        head: the names of the columns.
        rows: their cells, as they are to stand there.
        words: columns of words, which stand on the left, as the first one does; numbers stand on the right.
    """
    return _drawn("pipe", head, rows, words)


def plain(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> str:
    """The same table for the terminal."""
    return "\n".join(_drawn("simple", head, rows, words))


def _drawn(form: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str]) -> list[str]:
    align = ["left" if place == 0 or name in words else "right" for place, name in enumerate(head)]
    # Cells are formatted already: "12.0" keeps its digits.
    drawn: str = tabulate(rows, headers=head, tablefmt=form, colalign=align, disable_numparse=True)
    return drawn.splitlines()


def number(value: float | None, digits: int = 2) -> str:
    """A dash for None."""
    return DASH if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Three digits or so; a dash for None."""
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
