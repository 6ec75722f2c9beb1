"""Requests of different lengths as one batch, and its answers as theirs again.

In: a manifest; tensors that `runtime.input_validation` arranged. Out: padded batches, and each request's rows of their
outputs. Refuses nothing: requests that cannot share a batch have different keys.

Rows are padded along the sequence axis, with the tokenizer's padding where the artifact has one and masked everywhere.
The gate has verified padded rows of every artifact that has a mask. Without a mask, or where an input has a sequence
axis of a kind that nothing here knows how to pad, only requests of the same sizes share a batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch

from runtime.format.manifest import Manifest, TensorSpec

BATCH, SEQUENCE = "batch", "sequence"


class Batcher:
    """How one artifact's requests are put together."""

    def __init__(self, manifest: Manifest) -> None:
        text = manifest.text
        self._specs = manifest.inputs
        self._outputs = manifest.outputs
        self._left = text is not None and text.padding_side == "left"
        # What stands at padded places.
        self._fill = {
            "input_ids": text.pad_id if text else 0,
            "attention_mask": 0,
            "token_type_ids": text.pad_type_id if text else 0,
        }
        along = {spec.name for spec in manifest.inputs if any(axis.name == SEQUENCE for axis in spec.axes)}
        self._pads = "attention_mask" in along and along <= set(self._fill)
        self._whole = all(spec.axes[0].name == BATCH for spec in (*manifest.inputs, *manifest.outputs))
        limits = [axis.maximum for spec in manifest.inputs for axis in spec.axes if axis.name == BATCH]
        # Most rows of a batch; None where there is no limit.
        self.most_rows = min((limit for limit in limits if limit is not None), default=None)

    def rows(self, tensors: Sequence[torch.Tensor]) -> int:
        """How many rows a request has."""
        return int(tensors[0].shape[0])

    def length(self, tensors: Sequence[torch.Tensor]) -> int:
        """Its length along the sequence axis; 1 where there is none."""
        return next(
            (tensor.shape[_axis(spec)] for spec, tensor in zip(self._specs, tensors, strict=True) if _axis(spec)), 1
        )

    def key(self, tensors: Sequence[torch.Tensor]) -> Hashable:
        """Requests of the same key may share a batch."""
        if not self._whole:
            return object()
        free = SEQUENCE if self._pads else None
        return tuple(
            tuple(size for axis, size in zip(spec.axes, tensor.shape, strict=True) if axis.name not in (BATCH, free))
            for spec, tensor in zip(self._specs, tensors, strict=True)
        )

    def merged(self, requests: Sequence[Sequence[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """One batch of all rows, in order."""
        longest = max(map(self.length, requests))
        columns = zip(*requests, strict=True)
        return {
            spec.name: torch.cat([self._padded(spec, tensor, longest) for tensor in column])
            for spec, column in zip(self._specs, columns, strict=True)
        }

    def parted(
        self, answers: Mapping[str, torch.Tensor], requests: Sequence[Sequence[torch.Tensor]]
    ) -> list[dict[str, torch.Tensor]]:
        """Each request's own rows, without what was padded."""
        found, first, longest = [], 0, max(map(self.length, requests))
        for request in requests:
            last, length = first + self.rows(request), self.length(request)
            begin = longest - length if self._left else 0
            own = {}
            for spec in self._outputs:
                rows = answers[spec.name][first:last]
                axis = _axis(spec)
                # A copy: the others' rows are not kept alive by this request's.
                own[spec.name] = (rows.narrow(axis, begin, length) if axis and length < longest else rows).clone()
            found.append(own)
            first = last
        return found

    def _padded(self, spec: TensorSpec, tensor: torch.Tensor, longest: int) -> torch.Tensor:
        axis = _axis(spec)
        missing = longest - tensor.shape[axis] if axis else 0
        if not missing:
            return tensor
        fill = torch.full((tensor.shape[0], missing), self._fill[spec.name], dtype=tensor.dtype)
        return torch.cat([fill, tensor] if self._left else [tensor, fill], dim=axis)


def _axis(spec: TensorSpec) -> int:
    """The position of the sequence axis; 0, which is the batch's, where there is none."""
    return next((position for position, axis in enumerate(spec.axes) if axis.name == SEQUENCE), 0)
