"""loadgen.svg: samples per second in Offline and the highest rate that holds, one bar per system.

What was not measured has no bar.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.harness.charts import Figure, bars
from benchmarks.loadgen import summary
from benchmarks.loadgen.summary import Result

COLOURS = {"onednn": "#d55e00", "ipex": "#e69f00", "openvino": "#0072b2", "onnxruntime": "#009e73"}
_PANELS: dict[str, tuple[str, Callable[[Result], float | None]]] = {
    "Offline: samples a second": ("offline", summary.offline_of),
    "Server: queries a second at p99 of 500 ms": ("server", summary.server_of),
}


def picture(result: Result) -> Figure:
    """A panel per scenario; behind each bar the strategy that it was reached with."""
    systems = result["systems"]
    names = {name: f"{name}, {entry['precision']}" for name, entry in systems.items()}
    panels, notes = {}, {}
    for title, (scenario, value_of) in _PANELS.items():
        values = {names[name]: value for name, entry in systems.items() if (value := value_of(entry))}
        if values:
            panels[title] = values
            notes[title] = {
                names[name]: entry[scenario]["strategy"] for name, entry in systems.items() if names[name] in values
            }
    title = "BERT base under MLPerf's load generator, texts of 8 to 128 tokens (higher is better)"
    colours = {names[name]: COLOURS[name] for name in systems}
    return bars(title, panels, digits=1, colours=colours, notes=notes)
