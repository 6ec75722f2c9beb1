"""Mixtures of experts: the experts that the example's tokens choose → all experts, weighted.

The original visits the chosen experts, with the tokens that chose them, or calls an operator that belongs to
transformers: a trace keeps the choice of its example, or needs that package to load. Here each expert sees every token,
and its output is weighted by the router, with zero if it was not chosen. The sums are equal; all experts are computed.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from exporter.tracing.patches.replacement import replace

WHAT = "mixture of experts computed by every expert: which ones a token chooses depends on the token"

_NAMES = re.compile("Expert|Router|M[oO][eE]")

# Experts whose attributes do not tell their layout: transposed, with a bias, gated, with a norm after the expert.
_LAYOUTS = {"OpenAIPrivacyFilterExperts": (True, True, True, False)}


def repair(model: torch.nn.Module) -> bool:
    """Replace the forward of every group of experts whose layout is known."""
    groups = [module for module in model.modules() if _layout(module) is not None and hasattr(module, "down_proj")]
    for group in groups:
        replace(group, "forward", _mix)
    return bool(groups)


def chooses(model: torch.nn.Module) -> bool:
    """Whether a router chooses experts for each token, by the names that transformers gives its classes.

    In fewer bits the choice may be another than in fp32 where two experts are nearly equal, and the answer with it:
    more shapes than usual must be tried.
    """
    return any(_NAMES.search(type(module).__name__) for module in model.modules())


def _layout(group: Any) -> tuple[bool, bool, bool, bool] | None:
    names = ("is_transposed", "has_bias", "has_gate", "has_post_expert_norm")
    if all(hasattr(group, name) for name in names):
        transposed, bias, gate, norm = (bool(getattr(group, name)) for name in names)
        return transposed, bias, gate, norm
    return _LAYOUTS.get(type(group).__name__)


def _mix(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Tokens [tokens, hidden] in and out; the router's choice and its weights are [tokens, chosen]."""
    layout = _layout(self)
    assert layout is not None  # `repair` looked
    transposed, bias, gate, norm = layout
    up, up_bias = (self.gate_up_proj, "gate_up_proj_bias") if gate else (self.up_proj, "up_proj_bias")

    def linear(tokens: torch.Tensor, weights: torch.Tensor, biases: str, expert: int) -> torch.Tensor:
        weight = weights[expert].t() if transposed else weights[expert]
        return torch.nn.functional.linear(tokens, weight, getattr(self, biases)[expert] if bias else None)

    total = torch.zeros_like(hidden_states)
    for expert in range(up.shape[0]):
        inner = linear(hidden_states, up, up_bias, expert)
        inner = self._apply_gate(inner) if gate else self.act_fn(inner)
        output = linear(inner, self.down_proj, "down_proj_bias", expert)
        if norm:
            output = self.post_expert_norm(output)
        share = (top_k_weights * (top_k_index == expert)).sum(dim=-1, keepdim=True)
        total = total + output * share.to(output.dtype)
    return total
