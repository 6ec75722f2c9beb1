"""Inputs made of pictures in the file: the same pixels as Pillow, whatever the sizes, and safe to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from exporter.loading import image_preprocessing
from exporter.loading.image_preprocessing import plan_pictures
from exporter.loading.image_results import picture_results
from exporter.packaging.operator_check import check_draft
from exporter.preprocessing import images, resampling
from exporter.tracing.graphs.graph_functions import define_method
from runtime.artifact import artifact_file
from runtime.host import torchscript

SIZES = [(1, 1), (1, 9), (5, 3), (40, 31), (224, 224), (120, 90), (90, 121), (300, 20)]


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x * 2,)


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


def test_a_module_gets_the_method(tmp_path: Path) -> None:
    """Written, checked and loaded as an export is."""
    table = torch.arange(256.0).repeat(3, 1) / 255
    constants: tuple[Any, ...] = ([images.SHORTEST, 32, 0, 0], 3, True, [24, 24], False, table, True, [0, 0])
    module = torchscript.freeze(torchscript.trace(Doubled().eval(), (torch.ones(2, 3),)))
    define_method(module, "preprocess", images.image_inputs, constants)
    file = tmp_path / "model.pt"
    artifact_file.save(module, file)
    check_draft(module, file, ())
    with artifact_file.open_archive(file) as archive:
        loaded = artifact_file.load(archive, frozenset())
    for height, width in SIZES:
        picture = noise(height, width)
        (expected,) = images.image_inputs(picture, *constants)
        (found,) = loaded.preprocess(picture)
        assert found.shape == (1, 3, 24, 24)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", range(6))
def test_pixels_are_those_of_pillow(kind: int) -> None:
    Image = pytest.importorskip("PIL.Image")
    import numpy as np
    import PIL

    adaptive = int(PIL.__version__.split(".")[0]) >= 13
    for height, width in SIZES:
        for to in [(30, 40), (1, 1), (height, 50), (50, width), (224, 224)]:
            picture = noise(height, width)
            resized = Image.fromarray(picture.numpy()).resize(to[::-1], resample=kind)
            expected = torch.from_numpy(np.array(resized)).int()
            found = resampling.resize_window(picture, *to, [0, 0, *to], kind, adaptive)
            # A sum that lies on the edge between two numbers.
            assert int((found - expected).abs().max()) <= 1
            assert float((found != expected).float().mean()) < 1e-3


def processor(name: str, **settings: Any) -> Any:
    """transformers' processor that works with Pillow; version 4 has it without the ending."""
    pytest.importorskip("PIL")
    return getattr(transformers, f"{name}ImageProcessorPil", getattr(transformers, f"{name}ImageProcessor"))(**settings)


KNOWN = [
    *("ViT", "DeiT", "Beit", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "CLIP", "Siglip", "Bit"),
    *("Blip", "Pvt", "EfficientNet", "Segformer", "DPT", "GLPN", "Detr", "RTDetr", "Yolos", "ConditionalDetr"),
    *("DeformableDetr", "MaskFormer", "Mask2Former", "OwlViT", "ChineseCLIP", "OneFormer", "Eomt", "Sam"),
]


@pytest.mark.parametrize("name", KNOWN)
def test_a_processor_of_transformers_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_preprocessing, "SAMPLES", ((1, 1), (31, 17), (250, 333), (620, 280)))
    plan = plan_pictures(processor(name), ["pixel_values", "pixel_mask"])
    assert plan.preprocessor is not None, plan.notes
    masked = name in ("Detr", "ConditionalDetr", "DeformableDetr", "Yolos", "MaskFormer", "Mask2Former", "OneFormer")
    assert plan.preprocessor.info.pads == masked

    assert len(plan.cases) >= 2


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CLIP", {"size": {"shortest_edge": 50}, "crop_size": {"height": 61, "width": 40}}),
        ("ViT", {"size": {"height": 33, "width": 70}, "image_mean": [0.1, 0.5, 0.9], "image_std": [1.0, 0.2, 0.3]}),
        ("Detr", {"size": {"max_height": 60, "max_width": 80}, "pad_size": {"height": 90, "width": 91}}),
        ("DPT", {"size": {"height": 56, "width": 56}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}),
        ("ConvNext", {"size": {"shortest_edge": 60}, "crop_pct": 0.8}),
        ("EfficientNet", {"size": {"height": 40, "width": 44}, "rescale_offset": True, "rescale_factor": 1 / 127.5}),
    ],
)
def test_settings_are_followed(name: str, settings: dict[str, Any], resample: int) -> None:
    plan = plan_pictures(processor(name, resample=resample, **settings), ["pixel_values", "pixel_mask"])
    assert plan.preprocessor is not None, plan.notes
    assert len(plan.cases) >= 2


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("ViT", {"blur": 3}, "its setting blur is not known"),
        ("Perceiver", {}, "it crops before it resizes"),
        ("PoolFormer", {}, "its setting crop_pct is not known"),
        ("Vilt", {}, "its setting size_divisor is not known"),
        ("Siglip2", {}, "its setting"),
        ("VideoMAE", {}, "its pixel_values are"),
        ("ViT", {"size": {"height": 0, "width": 8}}, "its height is 0"),
        ("ViT", {"image_mean": [0.5], "image_std": [0.5]}, "its image_mean is"),
    ],
)
def test_what_is_not_known_is_told(name: str, settings: dict[str, Any], reason: str) -> None:
    plan = plan_pictures(processor(name, **settings), ["pixel_values"])
    assert plan.preprocessor is None
    assert reason in plan.notes[0]


def test_a_processor_that_does_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its settings say."""
    one = processor("ViT")
    original = type(one).rescale
    monkeypatch.setattr(type(one), "rescale", lambda *args, **kwargs: original(*args, **kwargs) ** 2)
    plan = plan_pictures(one, ["pixel_values"])
    assert "gives other pixels" in plan.notes[0]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Detr", ("softmax", None)),
        ("Yolos", ("softmax", None)),
        ("DeformableDetr", ("sigmoid", 100)),
        ("ConditionalDetr", ("sigmoid", 100)),
        ("RTDetr", ("sigmoid", 300)),
    ],
)
def test_how_objects_are_made_is_found_out(name: str, rule: tuple[str, int | None]) -> None:
    config = getattr(transformers, f"{name}Config")(num_labels=9)
    results, _ = picture_results(processor(name), config, "object-detection")
    assert results is not None
    assert (results.scores, results.most) == rule
    assert len(results.classes) == 9


@pytest.mark.parametrize(
    ("name", "size"), [("MaskFormer", None), ("OneFormer", None), ("Mask2Former", (384, 384)), ("Eomt", (640, 640))]
)
def test_how_masks_become_classes_of_pixels_is_found_out(name: str, size: tuple[int, int] | None) -> None:
    results, reasons = picture_results(
        processor(name), transformers.PretrainedConfig(num_labels=5), "image-segmentation"
    )
    assert results is not None, reasons
    assert (results.scores, results.mask_size) == ("softmax", size)


def test_results_that_are_not_known_are_told() -> None:
    found, reasons = picture_results(processor("ViT"), transformers.ViTConfig(), "object-detection")
    assert found is None
    assert "makes them in a way that is not known" in reasons[0]


@pytest.mark.parametrize("size", [(1344, 60), (60, 1344), (1333, 600), (800, 1334), (1340, 67)])
@pytest.mark.parametrize("name", ["Yolos", "Detr"])
def test_sizes_at_the_edge_of_a_rule(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers' own processors round differently."""
    monkeypatch.setattr(image_preprocessing, "SAMPLES", (size,))
    assert plan_pictures(processor(name), ["pixel_values"]).preprocessor is not None
