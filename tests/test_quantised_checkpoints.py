"""Checkpoints of GPTQ and AWQ, written here number by number: what is read, what is exported, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter import Report
from exporter.config.request import ExportRequest
from exporter.loading.loader import load_source
from runtime import load
from runtime.errors import CheckpointError
from tests.test_generation import made

# Output or input of each of the eight codes of a number, the lowest bits first, as the packages write them.
ORDER = {"gptq": (0, 1, 2, 3, 4, 5, 6, 7), "awq": (0, 2, 4, 6, 1, 3, 5, 7)}


def packed(codes: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """[rows, 8 n] → int32 [rows, n]."""
    rows, count = codes.shape
    numbers = torch.zeros(rows, count // 8, dtype=torch.int64)
    for row in range(rows):
        for column in range(count // 8):
            for i, place in enumerate(order):
                numbers[row, column] |= int(codes[row, 8 * column + place]) << (4 * i)
    return torch.where(numbers >= 2**31, numbers - 2**32, numbers).to(torch.int32)


def quantised(folder: Path, method: str, group: int = 32, **settings: Any) -> dict[str, torch.Tensor]:
    """Replace the linears of a model's layers by codes; returns what these stand for, [outputs, inputs], by name."""
    made(folder, "llama", hidden_size=64, intermediate_size=96, tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(4)
    tensors, meant = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        outputs, inputs = tensors.pop(name).shape
        width = inputs if group == -1 else group
        codes = torch.randint(0, 16, (inputs, outputs), generator=generator)
        groups = torch.arange(inputs) // width
        zeros = torch.randint(1, 16, (int(groups[-1]) + 1, outputs), generator=generator)
        scales = (torch.rand(zeros.shape, generator=generator) * 0.03 + 0.01).half()
        meant[name] = ((codes - zeros[groups]).float() * scales[groups].float()).t().contiguous()
        prefix, less = name.removesuffix(".weight"), int(settings.get("checkpoint_format", "") != "gptq_v2")
        if method == "gptq":
            tensors[f"{prefix}.qweight"] = packed(codes.t(), ORDER["gptq"]).t().contiguous()
            tensors[f"{prefix}.qzeros"] = packed(zeros - less, ORDER["gptq"])
            tensors[f"{prefix}.g_idx"] = groups.to(torch.int32)
        else:
            tensors[f"{prefix}.qweight"], tensors[f"{prefix}.qzeros"] = (
                packed(x, ORDER["awq"]) for x in (codes, zeros)
            )
        tensors[f"{prefix}.scales"] = scales
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": group} | settings
    (folder / "config.json").write_text(json.dumps(config))
    return meant


def source_of(folder: Path) -> Any:
    return load_source(ExportRequest(model=str(folder), output="unused.pt"))


@pytest.mark.parametrize(
    ("method", "group", "settings"),
    [
        ("gptq", 32, {"sym": True, "desc_act": False}),
        ("gptq", -1, {"checkpoint_format": "gptq_v2"}),
        ("awq", 64, {"version": "gemm", "zero_point": True}),
    ],
)
def test_the_model_has_the_numbers_of_the_codes(
    method: str, group: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    meant = quantised(tmp_path, method, group, **settings)
    source = source_of(tmp_path)
    weights = source.model.state_dict()
    assert len(meant) == len(source.codes) == 14
    for name, expected in meant.items():
        assert torch.equal(weights[name], expected), name
    assert "14 linears of 4-bit codes dequantised to fp32" in source.notes


@pytest.mark.cpp
def test_a_file_of_int4_has_the_checkpoints_codes(tmp_path: Path, exported: Callable[..., Report]) -> None:
    meant = quantised(tmp_path, "gptq", 32)
    report = exported(tmp_path, precision="int4")
    assert any("14 linears with the checkpoint's own codes" in choice for choice in report.choices)
    # Only the head and the table are rounded: to 8 bits.
    model = source_of(tmp_path).model
    ids = torch.randint(3, 390, (2, 30), generator=torch.Generator().manual_seed(1))
    for part in (model.lm_head, model.model.embed_tokens):
        scale = part.weight.data.abs().amax(1, keepdim=True) / 127
        part.weight.data = (part.weight.data / scale).round() * scale
    with torch.no_grad():
        expected = model(ids).logits
    torch.testing.assert_close(load(report.output)(input_ids=ids)["logits"], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.state_dict()[next(iter(meant))], next(iter(meant.values())))


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        ({"bits": 8}, None, r"are quantised \(gptq with 8 bits\)"),
        ({"group_size": 48}, None, r"are quantised \(gptq with groups of 48\)"),
        ({"checkpoint_format": "marlin"}, None, "gptq in the form marlin"),
        ({"quant_method": "bitsandbytes"}, None, r"are quantised \(bitsandbytes\)"),
        ({}, ("g_idx", lambda x: x.flip(0)), "orders its inputs by their size"),
        ({}, ("qzeros", lambda x: torch.full_like(x, -1)), "has a zero of 16"),
        ({}, ("scales", lambda x: x[:, :8].contiguous()), "has scales .*; expected"),
        ({}, ("scales", lambda x: x.float() + 1e-7), "no numbers of fp16"),
        ({}, ("qzeros", None), "expected qweight, qzeros and scales"),
        ({}, ("qweight", lambda x: x.long()), "tensors of other types"),
    ],
)
def test_what_is_not_read(settings: dict[str, Any], change: Any, words: str, tmp_path: Path) -> None:
    quantised(tmp_path, "gptq")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= settings
    path.write_text(json.dumps(config))
    if change is not None:
        part, function = change
        tensors = load_file(tmp_path / "model.safetensors")
        name = next(name for name in sorted(tensors) if name.endswith(part))
        old = tensors.pop(name)
        if function is not None:
            tensors[name] = function(old).contiguous()
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=words):
        source_of(tmp_path)
