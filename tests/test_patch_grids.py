"""SigLIP 2 with images in their own proportions (NaFlex): patches, their mask, and each image's height and width."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, Siglip2Config, Siglip2ForImageClassification, Siglip2Model

import runtime
from exporter import ExportRequest, Report
from exporter.loading.loader import load_source
from runtime.errors import ArtifactFailedError, InputSizeError, InputValueError

pytest.importorskip("PIL")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = SMALL | {"vocab_size": 300, "max_position_embeddings": 16, "projection_size": 32}
VISION = SMALL | {"num_patches": 16, "patch_size": 8}
PROCESSOR = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 40}
# The last two are long: 2x18 and 38x1 patches.
PHOTOS = ((480, 640), (1080, 1920), (50, 20), (40, 100), (60, 600), (900, 20))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(2)
            config = Siglip2Config(text_config=TEXT, vision_config=VISION, num_labels=5)
            model = Siglip2Model(config) if name == "towers" else Siglip2ForImageClassification(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            model.save_pretrained(made[name])
            (made[name] / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        return made[name]

    return make


def pictures(folder: Path) -> list[dict[str, torch.Tensor]]:
    """What the processor makes of photos of several proportions, alone and in a batch."""
    processor = AutoImageProcessor.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    photos = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in PHOTOS]
    return [dict(processor(group, return_tensors="pt")) for group in (*([one] for one in photos), photos)]


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_images_of_any_proportions(
    folders: Callable[[str], Path], exported: Callable[..., Report], backend: str
) -> None:
    folder = folders("towers")
    report = exported(folder, task="image-embedding", backend=backend)
    assert not any("excluded" in choice for choice in report.choices)
    session = runtime.load(report.output)
    model: Any = AutoModel.from_pretrained(folder).eval()
    for inputs in pictures(folder):
        with torch.no_grad():
            expected = model.get_image_features(**inputs).pooler_output
        torch.testing.assert_close(session(**inputs)["image_embeds"], expected, rtol=1e-3, atol=1e-4)


def test_a_classifier(folders: Callable[[str], Path], exported: Callable[..., Report]) -> None:
    folder = folders("classifier")
    report = exported(folder, backend="plain")
    assert report.manifest.task == "image-classification"
    session = runtime.load(report.output)
    model: Any = Siglip2ForImageClassification.from_pretrained(folder).eval()
    for inputs in pictures(folder):
        with torch.no_grad():
            expected = model(**inputs).logits
        torch.testing.assert_close(session(**inputs)["logits"], expected, rtol=1e-3, atol=1e-4)


def test_what_the_processor_makes_is_verified(folders: Callable[[str], Path]) -> None:
    source = load_source(ExportRequest(str(folders("towers")), "unused.pt", task="image-embedding"))
    assert set(source.patch_grids) == {
        tuple(made["spatial_shapes"][0].tolist())
        for photo in ((480, 640), (1080, 1920), (640, 480), (1920, 1080), (512, 512))
        for made in [
            AutoImageProcessor.from_pretrained(folders("towers"))(
                torch.zeros(3, *photo, dtype=torch.uint8), return_tensors="pt"
            )
        ]
    }


def test_grids_that_do_not_fit_are_refused(folders: Callable[[str], Path], exported: Callable[..., Report]) -> None:
    session = runtime.load(exported(folders("towers"), task="image-embedding", backend="plain").output)
    inputs = pictures(folders("towers"))[0]
    with pytest.raises(ArtifactFailedError):
        session(**inputs | {"spatial_shapes": torch.tensor([[11, 11]])})
    with pytest.raises(InputValueError, match="'spatial_shapes' holds 41; expected integers from 1 to 40"):
        session(**inputs | {"spatial_shapes": torch.tensor([[1, 41]])})
    with pytest.raises(InputSizeError, match="'pixel_values' has 39 along its patches axis; expected 40 to 40"):
        session(**inputs | {"pixel_values": inputs["pixel_values"][:, :39]})
