"""Pictures: bars, stacked bars, and dots along a logarithmic axis, drawn by matplotlib and saved as SVG.

The only module that imports matplotlib. Each part of a picture that stands for a figure is a group of the SVG whose id
tells which one (`PANEL/ROW/NAME`), so that a program can find it; labels stay text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

__all__ = ["Figure", "Mark", "bars", "dots", "stacked", "svg"]

FIRST, OTHERS = "#d55e00", "#8da0ae"
_WIDTH_INCHES, _ROW_INCHES, _PANEL_INCHES, _HEAD_INCHES = 9.0, 0.29, 0.62, 0.55
# Labels as text, and nothing in the file that differs from run to run.
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 10, "axes.titlesize": 11}
_MOST_LABELS_A_LINE = 5


@dataclass(frozen=True)
class Mark:
    """How the dots of a series look; `tick`: an upright stroke."""

    colour: str
    shape: str = "o"
    tick: bool = False


def bars(
    title: str,
    panels: Mapping[str, Mapping[str, float]],
    *,
    digits: int = 2,
    colours: Mapping[str, str] | None = None,
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> Figure:
    """A bar per value, one panel below the other.

    Args:
        title: of the whole.
        panels: their titles, and in each the values by name.
        digits: of the number beside each bar.
        colours: by name; without them the first bar of a panel stands out.
        notes: by panel and name, what is to stand behind the number.
    """
    figure, axes = _panels(title, [len(values) for values in panels.values()])
    for axis, (panel, values) in zip(axes, panels.items(), strict=True):
        axis.set_title(panel, loc="left")
        longest = max(values.values())
        for row, (name, value) in enumerate(values.items()):
            colour = colours[name] if colours else FIRST if row == 0 else OTHERS
            (bar,) = axis.barh(row, value, height=0.7, color=colour)
            bar.set_gid(f"{panel}/{name}")
            note = (notes or {}).get(panel, {}).get(name)
            label = f"{value:.{digits}f}" + (f"  ({note})" if note else "")
            axis.text(value + 0.01 * longest, row, label, va="center")
        axis.set_xlim(0, longest * (1.6 if notes else 1.12))
        axis.set_xticks([])
        _rows(axis, list(values))
    return figure


def stacked(
    title: str,
    rows: Mapping[str, Mapping[str, int]],
    colours: Mapping[str, str],
    labels: Mapping[str, str],
) -> Figure:
    """A bar per row, whose parts are as long as their counts, in the order of `colours`; a label behind each bar."""
    figure, (axis,) = _panels(title, [len(rows)], legend_lines=1)
    for row, (name, counts) in enumerate(rows.items()):
        start = 0
        for part, colour in colours.items():
            if counts.get(part):
                (bar,) = axis.barh(row, counts[part], left=start, height=0.8, color=colour)
                bar.set_gid(f"{name}/{part}")
                start += counts[part]
        axis.text(start + 1, row, labels[name], va="center")
    axis.set_xlim(0, 1.12 * max((sum(counts.values()) for counts in rows.values()), default=1))
    axis.set_xticks([])
    _rows(axis, list(rows))
    found = [part for part in colours if any(counts.get(part) for counts in rows.values())]
    _legend(figure, {part: Mark(colours[part], "s") for part in found})
    return figure


def dots(
    title: str,
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    marks: Mapping[str, Mark],
    low: float,
    high: float,
) -> Figure:
    """A line per row with a dot per series, on a logarithmic axis; 1 is marked.

    Args:
        title: of the whole.
        panels: their titles, in each the rows, in each the values by the name of the series.
        marks: how each series looks, in the order of the legend; the first lies on top.
        low: the left end of the axis.
        high: the right end; a value beyond an end stands there, hollow.
    """
    seen = {name for rows in panels.values() for values in rows.values() for name in values}
    marks = {name: mark for name, mark in marks.items() if name in seen}
    legend_lines = math.ceil(len(marks) / _MOST_LABELS_A_LINE)
    figure, axes = _panels(title, [len(rows) for rows in panels.values()], legend_lines=legend_lines)
    steps = [low * 2 ** (step / 2) for step in range(round(2 * math.log2(high / low)) + 1)]
    for axis, (panel, rows) in zip(axes, panels.items(), strict=True):
        axis.set_title(panel, loc="left")
        axis.set_xscale("log")
        axis.set_xlim(low / 1.03, high * 1.03)
        axis.set_xticks(steps, [f"{step:.2g}" for step in steps])
        axis.minorticks_off()
        axis.grid(axis="both", color="#e6e6e6")
        axis.set_axisbelow(True)
        axis.axvline(1, color="#555555", linewidth=1)
        for row, (name, values) in enumerate(rows.items()):
            for order, (series, mark) in enumerate(marks.items()):
                if series in values:
                    dot = _dot(axis, values[series], row, mark, low, high)
                    dot.set(gid=f"{panel}/{name}/{series}", zorder=100 - order)
        _rows(axis, list(rows))
    _legend(figure, marks)
    return figure


def svg(figure: Figure) -> str:
    """The picture as SVG; the same picture gives the same text."""
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    # matplotlib leaves blanks at the ends of lines.
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _dot(axis: Any, value: float, row: int, mark: Mark, low: float, high: float) -> Any:
    inside = low <= value <= high
    place = min(max(value, low), high)
    if mark.tick:
        return axis.plot(place, row, "|", color=mark.colour, markersize=13, markeredgewidth=2.5, clip_on=False)[0]
    face = mark.colour if inside else "white"
    return axis.plot(place, row, mark.shape, color=mark.colour, markerfacecolor=face, markersize=7, clip_on=False)[0]


def _panels(title: str, rows: Sequence[int], legend_lines: int = 0) -> tuple[Figure, list[Any]]:
    """A figure with a panel for each number of rows, as high as they need."""
    head = _HEAD_INCHES + 0.25 * legend_lines
    heights = [_ROW_INCHES * (count + 0.4) for count in rows]
    whole = head + sum(heights) + _PANEL_INCHES * len(rows)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, whole))
        figure.text(0.02, 1 - 0.3 / whole, title, fontsize=13)
        axes, top = [], whole - head
        for height in heights:
            top -= 0.35
            axes.append(figure.add_axes((0.28, (top - height) / whole, 0.69, height / whole)))
            top -= height + _PANEL_INCHES - 0.35
    return figure, axes


def _rows(axis: Any, names: list[str]) -> None:
    """Name the rows, the first on top, without a frame."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.3, -0.7)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _legend(figure: Figure, marks: Mapping[str, Mark]) -> None:
    """Below the title, in lines of some five names."""
    handles = [
        Line2D(
            [],
            [],
            label=name,
            color=mark.colour,
            linestyle="none",
            marker="|" if mark.tick else mark.shape,
            markersize=13 if mark.tick else 7,
            markeredgewidth=2.5 if mark.tick else 1,
        )
        for name, mark in marks.items()
    ]
    top = 1 - 0.38 / figure.get_size_inches()[1]
    lines = math.ceil(len(marks) / _MOST_LABELS_A_LINE)
    columns = math.ceil(len(marks) / lines) if marks else 1
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, top), ncols=columns, frameon=False)
