"""speed.svg: every time relative to the best peer's, a line a row, a dot a contender.

In: the value of speed.json. Out: SVG. Refuses nothing: a row without a timed peer is left out. Pure.
"""

from __future__ import annotations

import math

from benchmarks.speed import summary
from benchmarks.speed.summary import Result

# Ours in warm and strong colours, the others in blues and greys; the floor is a tick, not a dot.
COLOURS = {
    "tuned": "#c1121f",
    "onednn": "#f4791f",
    "ipex": "#f2b134",
    "plain": "#8a5a2b",
    "eager": "#9aa5ad",
    "compile": "#4a6fa5",
    "aot": "#7fa8d1",
    "onnxruntime": "#2a9d8f",
    "openvino": "#5a189a",
    "floor": "#333333",
}
_LEFT, _WIDTH, _LINE, _TOP = 150, 690, 22, 74
# From half of the best peer's time to four times; what lies outside stands at the edge.
_LOW, _HIGH = 0.5, 4.0
_MARKS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def picture(result: Result) -> str:
    """The whole file."""
    parts: list[str] = []
    y = _TOP
    for precision in ("fp32", "bf16", "int8"):
        rows = [row for row in result["rows"] if row["precision"] == precision]
        rows = [row for row in rows if summary.best_peer(row, result["contenders"])]
        if not rows:
            continue
        parts.append(_text(16, y + 5, precision, "font-size:15px;font-weight:bold"))
        top = y + 14
        for row in rows:
            y += _LINE
            parts += _line(row, result, y + 5)
        parts += _axis(top, y + 16)
        y += 54
    legend = _legend([name for name in result["contenders"] if name in COLOURS])
    height = max(y, _TOP + 40)
    title = _text(16, 26, "Time of a call relative to the best peer (left of 1 is faster)", "font-size:16px")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 40}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([title, *legend, *parts])
        + "\n</svg>\n"
    )


def x_of(value: float) -> float:
    """Where a ratio stands, on a logarithmic axis; the edge for what lies outside."""
    share = math.log(min(max(value, _LOW), _HIGH) / _LOW) / math.log(_HIGH / _LOW)
    return _LEFT + share * _WIDTH


def _line(row: Result, result: Result, y: float) -> list[str]:
    peer = summary.best_peer(row, result["contenders"])
    assert peer is not None
    parts = [_text(_LEFT - 12, y + 4, f"{row['model']} {row['shape']}", "text-anchor:end")]
    parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" stroke="#eeeeee"/>')
    # Ours last: where dots lie on one another, they are on top.
    for name in reversed(list(result["contenders"])):
        time = summary.time_of(row, name)
        if time is None or name not in COLOURS:
            continue
        x, tip = x_of(time / peer[1]), f"<title>{name}: {time:.2f} ms, {time / peer[1]:.2f} of {peer[0]}</title>"
        if name == "floor":
            parts.append(
                f'<rect x="{x - 1.5:.1f}" y="{y - 8}" width="3" height="16" fill="{COLOURS[name]}">{tip}</rect>'
            )
        else:
            size = 6 if name == "tuned" else 5
            parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="{size}" fill="{COLOURS[name]}">{tip}</circle>')
    return parts


def _axis(top: float, bottom: float) -> list[str]:
    parts: list[str] = []
    for mark in _MARKS:
        x = x_of(mark)
        colour = "#333333" if mark == 1.0 else "#dddddd"
        parts.insert(0, f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(_text(x, bottom + 14, f"{mark:g}", "text-anchor:middle;fill:#666666"))
    return parts


def _legend(names: list[str]) -> list[str]:
    parts: list[str] = []
    x = 16.0
    for name in names:
        if name == "floor":
            parts.append(f'<rect x="{x + 2}" y="40" width="3" height="14" fill="{COLOURS[name]}"/>')
        else:
            parts.append(f'<circle cx="{x + 5}" cy="47" r="5" fill="{COLOURS[name]}"/>')
        words = "matrix products alone" if name == "floor" else name
        parts.append(_text(x + 14, 51, words))
        x += 30 + 7 * len(words)
    return parts


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{words}</text>'
