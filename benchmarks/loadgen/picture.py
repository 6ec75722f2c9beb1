"""loadgen.svg: samples a second Offline and the highest rate that holds, a bar a system.

In: the value of loadgen.json. Out: SVG. Refuses nothing: what was not measured has no bar. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.loadgen import summary
from benchmarks.loadgen.summary import Result
from benchmarks.speed.picture import COLOURS

_LEFT, _WIDTH, _LINE = 150, 430, 30
_PANELS: tuple[tuple[str, Callable[[Result], float | None]], ...] = (
    ("Offline: samples a second", summary.offline_of),
    ("Server: queries a second at p99 of 500 ms", summary.server_of),
)


def picture(result: Result) -> str:
    """The whole file."""
    parts = [
        _text(
            16,
            26,
            "BERT base under MLPerf's load generator, texts of 8 to 128 tokens; higher is better",
            "font-size:16px",
        )
    ]
    y = 58.0
    for title, value_of in _PANELS:
        values = {name: value_of(entry) for name, entry in result["systems"].items()}
        known = {name: value for name, value in values.items() if value}
        if not known:
            continue
        parts.append(_text(16, y, title, "font-weight:bold"))
        scale = _WIDTH / max(known.values())
        for name, value in known.items():
            y += _LINE
            entry, width = result["systems"][name], value * scale
            strategy = entry["offline" if value_of is summary.offline_of else "server"]["strategy"]
            parts.append(_text(_LEFT - 10, y + 3, f"{name} {entry['precision']}", "text-anchor:end"))
            parts.append(
                f'<rect x="{_LEFT}" y="{y - 11}" width="{width:.1f}" height="20" fill="{COLOURS[name]}">'
                f"<title>{name}: {value:.1f}, {strategy}</title></rect>"
            )
            parts.append(_text(_LEFT + width + 8, y + 3, f"{value:.1f} ({strategy})"))
        y += _LINE + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{max(y - 16, 60):.0f}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{words}</text>'
