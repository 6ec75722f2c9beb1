"""SAM: masks for points and boxes beside an image, any of which may be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

import runtime
from exporter import ExportRequest, Report
from exporter.loading.loader import load_source
from runtime.errors import InputSizeError, TaskError

VISION: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64}
VISION |= {
    "patch_size": 8,
    "output_channels": 16,
    "window_size": 3,
    "global_attn_indexes": [1],
    "mlp_dim": 32,
    "num_pos_feats": 8,
}
PROMPT = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "image_embedding_size": 8, "mask_input_channels": 4}
DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}
POINTS = torch.tensor([[[[10.0, 20.0], [40.0, 8.0]], [[33.0, 60.0], [5.0, 5.0]]]])
LABELS = torch.tensor([[[1, 0], [1, -10]]])
BOXES = torch.tensor([[[4.0, 6.0, 30.0, 44.0], [0.0, 10.0, 63.0, 20.0]]])
PROMPTS: dict[str, dict[str, torch.Tensor]] = {
    "all": {"input_points": POINTS, "input_labels": LABELS, "input_boxes": BOXES},
    "points": {"input_points": POINTS, "input_labels": LABELS},
    "points without labels": {"input_points": POINTS},
    "boxes": {"input_boxes": BOXES},
    "one point": {"input_points": POINTS[:, :1, :1], "input_labels": LABELS[:, :1, :1]},
    "nothing": {},
}


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(1)
    model = SamModel(SamConfig(vision_config=VISION, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_masks_for_any_prompts(sam: tuple[Path, Any], exported: Callable[..., Report], backend: str) -> None:
    folder, model = sam
    report = exported(folder, backend=backend)
    assert report.manifest.task == "mask-generation"
    assert not any("excluded" in choice for choice in report.choices)
    session = runtime.load(report.output)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    for prompts in PROMPTS.values():
        found = session(pixel_values=pixels, **prompts)
        with torch.no_grad():
            expected = model(pixel_values=pixels, **prompts)
        for name in ("pred_masks", "iou_scores"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
        seen.append(found["pred_masks"][:, 0, 0].clone())
    # The prompts matter.
    assert all(not torch.allclose(one, seen[0], atol=1e-3) for one in seen[1:])


def test_as_many_boxes_as_groups_of_points(sam: tuple[Path, Any], exported: Callable[..., Report]) -> None:
    session = runtime.load(exported(sam[0], backend="plain").output)
    with pytest.raises(InputSizeError, match="'input_boxes' has 1 along its prompts axis; expected 2, as in input"):
        session(pixel_values=torch.rand(1, 3, 64, 64), input_points=POINTS, input_boxes=BOXES[:, :1])


def test_other_models_with_prompts_are_refused(tmp_path: Path) -> None:
    backbone: dict[str, Any] = {
        "embed_dim": 8,
        "blocks_per_stage": [1, 1, 1, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
    }
    backbone |= {"num_attention_heads_per_stage": [1, 1, 2, 2], "global_attention_blocks": [1]}
    vision: dict[str, Any] = {"backbone_config": {"model_type": "sam2_hiera_det_model"} | backbone}
    vision["backbone_channel_list"] = [64, 32, 16, 8]
    Sam2Model(Sam2Config(vision_config=vision)).save_pretrained(tmp_path)
    with pytest.raises(TaskError, match="Sam2Model reads points and boxes in its own way"):
        load_source(ExportRequest(str(tmp_path), "unused.pt"))
