"""Patches for models that cannot be traced: decisions that a trace would keep are replaced by computations.

There is one module per patch. It says what the original decides, what replaces it, and why the outputs are the same;
verification compares them with those of the untouched model. Models without such decisions stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from exporter.tracing.patches import autograd_functions, canine, experts, funnel, longformer, patch_grids, xvector

# A patch returns whether it found what it repairs.
PATCHES: dict[str, Callable[[torch.nn.Module], bool]] = {
    canine.WHAT: canine.repair,
    experts.WHAT: experts.repair,
    autograd_functions.WHAT: autograd_functions.repair,
    funnel.WHAT: funnel.repair,
    longformer.WHAT: longformer.repair,
    patch_grids.WHAT: patch_grids.repair,
    xvector.WHAT: xvector.repair,
}


def repair(model: torch.nn.Module) -> list[str]:
    """Apply every patch that finds something to repair; returns what was done, for people."""
    return [what for what, patch in PATCHES.items() if patch(model)]
