"""A bar chart as SVG, and the processor's name: what the scripts here share.

In: names with numbers. Out: text. Refuses nothing.
"""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """As the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def bars(title: str, values: dict[str, float]) -> str:
    """A bar chart; the first bar stands out."""
    scale, rows = 420 / max(values.values()), []
    for i, (name, value) in enumerate(values.items()):
        y, colour = 44 + 34 * i, "#2a6f97" if i == 0 else "#a9b8c2"
        rows.append(f'<text x="212" y="{y + 15}" text-anchor="end">{name}</text>')
        rows.append(f'<rect x="220" y="{y}" width="{value * scale:.0f}" height="22" fill="{colour}"/>')
        rows.append(f'<text x="{226 + value * scale:.0f}" y="{y + 15}">{value:.2f}</text>')
    height = 56 + 34 * len(values)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{height}" '
        'font-family="sans-serif" font-size="13">'
        f'<rect width="700" height="{height}" fill="white"/><text x="16" y="26" font-size="15">{title}</text>'
        + "".join(rows)
        + "</svg>\n"
    )
