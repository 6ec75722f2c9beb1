"""What is compared, as pure data: systems, layouts, strategies.

Needs no package, so that workers of every environment can import it. Unknown names are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.harness.rows import Precision, UnknownNameError

CORES = 2
# What the 99th percentile of the latency may be in the Server scenario.
LATENCY_MS = 500


@dataclass(frozen=True)
class System:
    """One way to serve the model. `name` is the contender of `benchmarks.harness` whose files it loads.

    `module` in `benchmarks.loadgen.engines` runs it, in the environment `home`.
    """

    name: str
    kind: Literal["ours", "peer"]
    module: str
    precision: Precision
    about: str
    home: Literal["main", "peers"] = "main"


SYSTEMS = {
    system.name: system
    for system in (
        System("onednn", "ours", "exported", "bf16", "runtime.serving.pool.Pool, export-model --backend onednn"),
        System("ipex", "ours", "exported", "bf16", "runtime.serving.pool.Pool, export-model --backend ipex"),
        System(
            "openvino",
            "peer",
            "openvino",
            "bf16",
            "OpenVINO's AsyncInferQueue, its precision hint; several streams with the throughput hint, one with the "
            "latency hint",
            "peers",
        ),
        System(
            "onnxruntime",
            "peer",
            "onnx",
            "fp32",
            "ONNX Runtime, graph optimised by its transformers optimiser; a thread a stream on one session",
            "peers",
        ),
    )
}


@dataclass(frozen=True)
class Layout:
    """So many calls at once, each with so many threads. A process has one."""

    streams: int
    threads: int

    @property
    def name(self) -> str:
        """For files and tables: `2x1`."""
        return f"{self.streams}x{self.threads}"


LAYOUTS = (Layout(1, CORES), Layout(CORES, 1))


@dataclass(frozen=True)
class Strategy:
    """How queries are put together: alone without padding (`max_tokens` is None), or in batches.

    A batch is the query that waits longest and those of nearly its length, padded to the longest of them (rounded up
    to `multiple`), as many as fit into `max_tokens`: rows times longest.
    """

    layout: Layout
    max_tokens: int | None = None
    multiple: int = 1

    @property
    def name(self) -> str:
        """For tables, and the key of results."""
        if self.max_tokens is None:
            return f"{self.layout.name}, one by one"
        rounded = f", lengths rounded up to {self.multiple}" if self.multiple > 1 else ""
        return f"{self.layout.name}, batches of {self.max_tokens} tokens{rounded}"


# Tokens of a batch: some five texts, or some twenty.
BUDGETS = (256, 1024)
# Frameworks that choose kernels by shape meet fewer shapes where lengths are rounded up.
BUCKET = 16


def strategies(system: System, layout: Layout) -> list[Strategy]:
    """All that a system may try in a layout. Peers may also sort into buckets of lengths, which the pool does not."""
    found = [Strategy(layout), *(Strategy(layout, budget) for budget in BUDGETS)]
    if system.kind == "peer":
        found.append(Strategy(layout, BUDGETS[-1], BUCKET))
    return found


def choose_systems(names: Sequence[str], precision: Precision = "bf16") -> list[System]:
    """The systems of these names, in the table's order; all without names. In fp32 all of them are.

    Raises:
        UnknownNameError: no system has that name.
    """
    for name in names:
        if name not in SYSTEMS:
            raise UnknownNameError(f"no system {name!r}; there are {', '.join(SYSTEMS)}")
    chosen = [system for system in SYSTEMS.values() if not names or system.name in names]
    return [replace(system, precision="fp32") for system in chosen] if precision == "fp32" else chosen
