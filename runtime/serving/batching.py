"""Put requests of different lengths into one batch, and split the batch's outputs again.

Rows are padded along the sequence axis, with the tokenizer's padding if the artifact has a tokenizer, and masked. The
verification at export covers padded rows of every artifact that has a mask. Without a mask, or if an input other than
ids, mask and token types has a sequence axis, only requests of equal sizes share a batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch

from runtime.format.manifest import Manifest, TensorSpec

BATCH, SEQUENCE = "batch", "sequence"


class Batcher:
    """Batches the requests of one artifact."""

    def __init__(self, manifest: Manifest) -> None:
        text = manifest.text
        self._specs = manifest.inputs
        self._outputs = manifest.outputs
        self._left = text is not None and text.padding_side == "left"
        # The values at padded positions.
        self._fill = {
            "input_ids": text.pad_id if text else 0,
            "attention_mask": 0,
            "token_type_ids": text.pad_type_id if text else 0,
        }
        with_sequence = {spec.name for spec in manifest.inputs if any(axis.name == SEQUENCE for axis in spec.axes)}
        self._pads = "attention_mask" in with_sequence and with_sequence <= set(self._fill)
        self._batches = all(spec.axes[0].name == BATCH for spec in (*manifest.inputs, *manifest.outputs))
        limits = [axis.maximum for spec in manifest.inputs for axis in spec.axes if axis.name == BATCH]
        # The limit of a batch's rows; None: no limit.
        self.most_rows = min((limit for limit in limits if limit is not None), default=None)

    def rows(self, tensors: Sequence[torch.Tensor]) -> int:
        """The number of rows of a request."""
        return int(tensors[0].shape[0])

    def length(self, tensors: Sequence[torch.Tensor]) -> int:
        """The size of a request's sequence axis; 1 if it has none."""
        return next(
            (tensor.shape[_axis(spec)] for spec, tensor in zip(self._specs, tensors, strict=True) if _axis(spec)), 1
        )

    def key(self, tensors: Sequence[torch.Tensor]) -> Hashable:
        """Requests with equal keys may share a batch."""
        if not self._batches:
            return object()
        padded = SEQUENCE if self._pads else None
        return tuple(
            tuple(size for axis, size in zip(spec.axes, tensor.shape, strict=True) if axis.name not in (BATCH, padded))
            for spec, tensor in zip(self._specs, tensors, strict=True)
        )

    def collate(self, requests: Sequence[Sequence[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Concatenate the requests' rows in order, padded to the longest."""
        longest = max(map(self.length, requests))
        columns = zip(*requests, strict=True)
        return {
            spec.name: torch.cat([self._padded(spec, tensor, longest) for tensor in column])
            for spec, column in zip(self._specs, columns, strict=True)
        }

    def split(
        self, outputs: Mapping[str, torch.Tensor], requests: Sequence[Sequence[torch.Tensor]]
    ) -> list[dict[str, torch.Tensor]]:
        """Each request's rows of the batch's outputs, without padding."""
        found, first, longest = [], 0, max(map(self.length, requests))
        for request in requests:
            last, length = first + self.rows(request), self.length(request)
            begin = longest - length if self._left else 0
            own = {}
            for spec in self._outputs:
                rows = outputs[spec.name][first:last]
                axis = _axis(spec)
                # A copy, so that this request's rows do not keep the whole batch in memory.
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
    """The position of the sequence axis; 0, the batch axis, if there is none."""
    return next((position for position, axis in enumerate(spec.axes) if axis.name == SEQUENCE), 0)
