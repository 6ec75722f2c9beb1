"""Measure how close a session's outputs on samples of real data are to the original model's.

Samples that the session does not admit are left out, and the count says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from runtime.errors import InputError
from runtime.format.golden import Case
from runtime.format.manifest import Accuracy, TensorSpec
from runtime.session import Session

# At most so many numbers of one output of one sample: a masked language model has millions of scores per line.
MAX_COMPARED = 2**18


def measure(session: Session, cases: Sequence[Case]) -> list[Accuracy]:
    """Call each case once. The expected outputs are already reduced by `rows_of`.

    Raises:
        ArtifactFailedError: the model fails.
    """
    pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for case in cases:
        try:
            outputs = session(**case.inputs)
        except InputError:
            continue
        for spec in session.manifest.outputs:
            rows = rows_of(outputs[spec.name], spec, case.inputs)
            pairs.setdefault(spec.name, []).append((rows, case.outputs[spec.name]))
    return [_accuracy(name, found) for name, found in pairs.items()]


def rows_of(tensor: torch.Tensor, spec: TensorSpec, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The output as rows along its last axis, without padded positions; evenly spread rows if there are too many."""
    mask = inputs.get("attention_mask")
    axes = [axis.name for axis in spec.axes]
    if axes[:2] == ["batch", "sequence"] and len(axes) == 3 and mask is not None:
        tensor = tensor[mask.bool()]
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows[:: max(1, -(-rows.numel() // MAX_COMPARED))].clone()


def _accuracy(name: str, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Accuracy:
    # NaN counts as 0, and so do infinities, with which some models mask scores.
    pairs = [(got.nan_to_num(0, 0, 0), expected.nan_to_num(0, 0, 0)) for got, expected in pairs]
    cosines = torch.cat([torch.nn.functional.cosine_similarity(*pair, dim=-1) for pair in pairs])
    # An output of zeros has no scale: its error then stays absolute.
    errors = [float((got - expected).abs().max() / (expected.abs().max() or 1.0)) for got, expected in pairs]
    matches = sum(int((got.argmax(-1) == expected.argmax(-1)).sum()) for got, expected in pairs)
    return Accuracy(
        output=name,
        samples=len(pairs),
        rows=len(cosines),
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        max_error=max(errors),
        argmax_matches=matches if name.endswith("logits") else None,
    )
