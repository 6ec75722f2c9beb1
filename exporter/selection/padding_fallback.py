"""Whether padding can be left out of a trace, and what comes behind where that was wrong.

In: a candidate, a plan, a frozen trace; or candidates' files. Out: what was done, in words; the same candidate with
padding kept. Refuses nothing: a model whose rows are padded in front, or not at all, keeps its padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from exporter.backends.base import PaddingDropper
from exporter.backends.candidates import Candidate
from exporter.selection.build_result import Built
from exporter.shapes.example_inputs import ExampleInputs
from exporter.shapes.trace_plan import TracePlan
from exporter.verification.reference import Point
from runtime.host.torchscript import ScriptModule


def drop_padding(
    way: Candidate, plan: TracePlan, module: ScriptModule, example: ExampleInputs
) -> tuple[Candidate, list[str]]:
    """Rewrite the trace so that it does no work on padding.

    Returns:
        The candidate, told whether that was possible; and what was done, in words.
    """
    padded_behind = plan.padded_axis == "sequence" and plan.padding_side == "right"
    if not way.drop_padding or not padded_behind or not isinstance(way.backend, PaddingDropper):
        return dataclasses.replace(way, drop_padding=False), []
    mask = example.tensors.get("attention_mask")
    attentions, said = way.backend.drop_padding(module, example) if mask is not None and mask.dim() == 2 else (0, [])
    return dataclasses.replace(way, drop_padding=attentions > 0), said


def answered(way: Candidate, points: Sequence[Point]) -> list[Point]:
    """The points, with what the candidate answers at places of padding."""
    return [point.without_padding if way.drop_padding else point for point in points]


def with_padding_kept(found: Iterator[Built], build: Callable[[Candidate], Built | None]) -> Iterator[Built]:
    """Behind a candidate without work on padding, which has failed when the next is asked for, the same with it."""
    for built in found:
        yield built
        if built.way.drop_padding:
            kept = build(dataclasses.replace(built.way, reason="with padding", drop_padding=False))
            if kept is not None:
                # What was timed was the other.
                times = tuple(dataclasses.replace(one, chosen=False) for one in built.manifest.timings)
                yield dataclasses.replace(kept, manifest=dataclasses.replace(kept.manifest, timings=times))
