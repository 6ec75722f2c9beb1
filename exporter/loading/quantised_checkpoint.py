"""Checkpoints that GPTQ or AWQ quantised to 4 bits, read from their tensors, without the packages that wrote them.

A linear is `qweight`, `qzeros` and `scales` (GPTQ: and `g_idx`) in place of `weight`. Each 32-bit number holds eight
codes. GPTQ's first form stores zeros less 1; AWQ's order within a number is 0, 2, 4, 6, 1, 3, 5, 7. The model gets
what the codes stand for in fp32, and the codes themselves can be exported as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from exporter.loading.hub import ModelFiles
from exporter.loading.weight_codes import Codes
from exporter.loading.weight_files import read_all_tensors
from runtime.errors import CheckpointError

_PER_NUMBER = 8
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# Groups that the operators know; larger ones are several of these with the same scale.
_GROUPS = (32, 64, 128)
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class QuantisedWeights:
    """A model's tensors by name, those of linears as what their codes stand for; and these codes."""

    tensors: dict[str, torch.Tensor]
    codes: tuple[Codes, ...]


def quantisation_of(config: Any) -> dict[str, Any] | None:
    """The settings of a checkpoint's quantisation; None if its weights are plain."""
    settings = getattr(config, "quantization_config", None)
    if settings is None or isinstance(settings, dict):
        return settings
    return dict(settings.to_dict())


def quantisation_problem(settings: Mapping[str, Any]) -> str | None:
    """Why a quantised checkpoint cannot be read; None if it can, as far as its settings say."""
    method, bits, group = (settings.get(name) for name in ("quant_method", "bits", "group_size"))
    if method not in ("gptq", "awq"):
        return f"{method or 'quantization_config'}"
    if bits != 4:
        return f"{method} with {bits} bits"
    if not isinstance(group, int) or not (group in (-1, *_GROUPS) or (group > 0 and group % _GROUPS[-1] == 0)):
        return f"{method} with groups of {group}"
    form = settings.get("checkpoint_format", "gptq") if method == "gptq" else settings.get("version", "gemm")
    if str(form).lower() not in ("gptq", "gptq_v2", "gemm"):
        return f"{method} in the form {form}"
    return None


def read_quantised(files: ModelFiles, settings: Mapping[str, Any]) -> QuantisedWeights:
    """All weights of a checkpoint with such settings.

    Raises:
        CheckpointError: tensors are missing, or do not fit each other or the settings.
    """
    stored = read_all_tensors(files)
    names = sorted(name.removesuffix(".qweight") for name in stored if name.endswith(".qweight"))
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in stored.items()
        if not name.endswith(tuple(f".{part}" for part in _PARTS))
    }
    codes = []
    for name in names:
        parts = {part: stored[f"{name}.{part}"] for part in _PARTS if f"{name}.{part}" in stored}
        found = _codes(f"{name} of {files.id}", parts, settings)
        tensors[f"{name}.weight"] = found.numbers
        codes.append(found)
    return QuantisedWeights(tensors, tuple(codes))


def _codes(place: str, parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Codes:
    if not {"qweight", "qzeros", "scales"} <= parts.keys():
        raise CheckpointError(f"{place} has {', '.join(parts)}", "qweight, qzeros and scales", "copy the weights again")
    gptq = settings["quant_method"] == "gptq"
    weight, scales = parts["qweight"], parts["scales"]
    if weight.dim() != 2 or weight.dtype != torch.int32 or scales.dim() != 2 or parts["qzeros"].dtype != torch.int32:
        raise CheckpointError(f"{place} has tensors of other types", "int32 numbers of two axes, and scales")
    # [inputs, outputs]
    codes = _unpacked(weight.t(), range(_PER_NUMBER)).t() if gptq else _unpacked(weight, _AWQ_ORDER)
    inputs, outputs = codes.shape
    group = inputs if settings["group_size"] == -1 else int(settings["group_size"])
    zeros = _unpacked(parts["qzeros"], range(_PER_NUMBER) if gptq else _AWQ_ORDER)
    groups = -(-inputs // group)
    if scales.shape != (groups, outputs) or zeros.shape != (groups, outputs):
        raise CheckpointError(f"{place} has scales {list(scales.shape)}", f"[{groups}, {outputs}]", "copy it again")
    if "g_idx" in parts and not torch.equal(parts["g_idx"].long(), torch.arange(inputs) // group):
        raise CheckpointError(
            f"{place} orders its inputs by their size (desc_act)",
            "groups of neighbouring inputs",
            "export the original model with --int4, or quantise it without desc_act",
        )
    if gptq and settings.get("checkpoint_format", "gptq") == "gptq":
        if bool((zeros == 15).any()):
            raise CheckpointError(
                f"{place} has a zero of 16, which writers of this form store in two ways",
                "zeros from 1 to 15",
                "convert it to the form gptq_v2",
            )
        zeros = zeros + 1
    halves = scales.half()
    if not torch.equal(halves.float(), scales.float()) or not bool(halves.isfinite().all()):
        raise CheckpointError(f"{place} has scales that are no numbers of fp16", "scales in fp16")
    return _in_groups(codes, halves, zeros, group)


def _in_groups(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group: int) -> Codes:
    """[outputs, …], in groups of a size that the operators know."""
    size = group if group in _GROUPS else _GROUPS[-1]
    needed = -(-codes.shape[0] // size)
    wide = [each.repeat_interleave(-(-group // size), 0)[:needed].t().contiguous() for each in (scales, zeros.half())]
    return Codes(codes.t().contiguous().to(torch.uint8), wide[0], wide[1], size)


def _unpacked(numbers: torch.Tensor, order: Any) -> torch.Tensor:
    """[rows, n] of eight codes each → [rows, 8 n]; code number i of a number is output order[i] of its eight."""
    found = torch.empty([*numbers.shape, _PER_NUMBER], dtype=torch.int32)
    for i, place in enumerate(order):
        found[..., place] = numbers >> (4 * i) & 15
    return found.flatten(1)
