"""Repairs: models whose forward takes decisions that a trace would keep, given one that takes none.

In: the model, after its reference answers were made. Out: the same model, its instances' methods replaced, and a line
that says what was repaired. Refuses nothing: a model that no patch is for stays as it is. One module a patch, which
says what the original decides, what stands in its place, and why the answers are the same; the gate compares them with
those of the untouched model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from exporter.tracing.patches import autograd_functions, canine, experts, funnel, longformer, xvector

# A patch returns whether it found what it repairs.
PATCHES: dict[str, Callable[[torch.nn.Module], bool]] = {
    canine.WHAT: canine.repair,
    experts.WHAT: experts.repair,
    autograd_functions.WHAT: autograd_functions.repair,
    funnel.WHAT: funnel.repair,
    longformer.WHAT: longformer.repair,
    xvector.WHAT: xvector.repair,
}


def repair(model: torch.nn.Module) -> list[str]:
    """Apply every patch that finds something to repair; what was done, for people."""
    return [what for what, patch in PATCHES.items() if patch(model)]
