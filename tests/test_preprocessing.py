"""Inputs made of pictures in the file: the same pixels as Pillow, whatever the sizes, and safe to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

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
