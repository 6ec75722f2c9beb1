"""ExampleInputs: real tensors for a plan, as a dict or as a tuple.

In: a TracePlan, sizes, row lengths, a seed. Out: `ExampleInputs`, the same for the same arguments. Refuses rows
that are longer than the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from exporter.plan import TracePlan
from runtime.manifest import ValueRange


@dataclass(frozen=True)
class ExampleInputs:
    """Tensors by name, in the plan's order. All int64, shape [batch, sequence]."""

    tensors: Mapping[str, torch.Tensor]

    def as_dict(self) -> dict[str, torch.Tensor]:
        """For keyword tracing (torch 2.0 and later)."""
        return dict(self.tensors)

    def as_tuple(self) -> tuple[torch.Tensor, ...]:
        """For positional tracing."""
        return tuple(self.tensors.values())


def make_inputs(
    plan: TracePlan, batch: int, sequence: int, lengths: Sequence[int] | None = None, seed: int = 0
) -> ExampleInputs:
    """Seeded random inputs; `lengths` are the rows' real lengths, the rest of each row being padding.

    Raises:
        ValueError: a length that is not within 1 to `sequence`, or not one a row.
    """
    lengths = list(lengths) if lengths is not None else [sequence] * batch
    if len(lengths) != batch or not all(1 <= length <= sequence for length in lengths):
        raise ValueError(f"lengths {lengths} do not fit a batch of {batch} with sequence {sequence}")
    generator = torch.Generator().manual_seed(seed)
    real = torch.zeros((batch, sequence), dtype=torch.bool)
    for row, length in enumerate(lengths):
        if plan.padding_side == "right":
            real[row, :length] = True
        else:
            real[row, sequence - length :] = True
    tensors = {}
    for spec in plan.inputs:
        if spec.name == "attention_mask":
            tensors[spec.name] = real.long()
            continue
        assert spec.values is not None  # every integer input of a plan is bounded
        padding = plan.pad_id if spec.name == "input_ids" else 0
        values = _draw(plan, spec.name, spec.values, (batch, sequence), generator)
        tensors[spec.name] = torch.where(real, values, padding)
    return ExampleInputs(tensors)


def _draw(
    plan: TracePlan, name: str, values: ValueRange, shape: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    if name != "input_ids":
        # Segments, as tokenizers make them: zeros, then the higher types in order.
        share = torch.linspace(0, values.maximum + 0.999, shape[1]).long()
        return share.expand(shape).clone()
    ids = torch.randint(values.minimum, values.maximum + 1, shape, generator=generator)
    allowed = [i for i in range(values.minimum, values.maximum + 1) if i not in plan.avoided_ids]
    if not allowed:
        return ids
    replacement = torch.tensor(allowed)[ids % len(allowed)]
    special = torch.isin(ids, torch.tensor(sorted(plan.avoided_ids)))
    return torch.where(special, replacement, ids)
