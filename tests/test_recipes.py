"""Inputs of golden cases that a file describes instead of holding them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import runtime
from exporter import ExportRequest, export
from runtime.artifact import artifact_file
from runtime.errors import ManifestDamagedError
from runtime.format.golden import Case, dump_cases, dump_within, parse_cases
from runtime.format.noise import Recipe
from runtime.verification.worker import check_golden
from tests.conftest import tiny_model

# tests/test_cpp.py has the C++ library make these too.
RECIPES = (
    Recipe((3,), seed=0),
    Recipe((2, 40_000), seed=2**62 - 1, axis=1, lengths=(40_000, 7)),
    Recipe((2, 3, 65, 40), seed=5, block=32, axis=3, lengths=(40, 11)),
    Recipe((3, 9, 4), axis=1, lengths=(9, 0, 5)),
)
BAD_RECIPES = {
    "no-shape": [1, 0, 0, 3, 2, 2],
    "large": [1, 0, 0, 2, 2**20, 2**20],
    "length": [1, 0, 1, 2, 2, 5, 5, 6],
    "seed": [-1, 0, 0, 1, 4],
}


def test_the_numbers_are_those_of_the_specification() -> None:
    """SplitMix64 with seed 0 gives 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F."""
    top = torch.tensor([0xE220A, 0x6E789, 0x06C45], dtype=torch.float64)
    assert torch.equal(Recipe((3,), seed=0).make().double(), (top / 2**20 - 0.5) * 4)


def test_an_image_has_squares_and_a_short_row_ends_in_zeros() -> None:
    image = Recipe((2, 1, 65, 40), seed=5, block=32, axis=3, lengths=(40, 11)).make()
    plain, squares = Recipe((2, 1, 65, 40), seed=5).make(), Recipe((2, 1, 3, 2), seed=6).make() * 2
    assert torch.equal(image[0, 0, 64, 33], plain[0, 0, 64, 33] + squares[0, 0, 2, 1])
    assert torch.equal(image[1, ..., :11], (plain + squares[..., :1, :1]).new_tensor(image[1, ..., :11].tolist()))
    assert image[1, ..., :11].all() and not image[1, ..., 11:].any()


def test_recipes_survive_the_file_and_are_small_there() -> None:
    cases = [Case(str(n), {"x": one.make()}, {"y": torch.ones(1)}, {}, {"x": one}) for n, one in enumerate(RECIPES)]
    data = dump_cases(cases)
    assert len(data) < 2000
    for case, back in zip(cases, parse_cases(data, "f"), strict=True):
        assert torch.equal(case.inputs["x"], back.inputs["x"]) and case.inputs["x"].dtype == back.inputs["x"].dtype
    assert dump_cases(parse_cases(data, "f")) == data


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_recipe_for_no_tensor_is_refused(name: str) -> None:
    with pytest.raises(ManifestDamagedError, match="0/noise/x holds .*; expected a recipe"):
        parse_cases(save({"0/noise/x": torch.tensor(BAD_RECIPES[name])}), "f")


def test_samples_shrink_until_the_cases_fit() -> None:
    cases = [Case(str(n), {"x": torch.ones(2)}, {"y": torch.rand(100_000)}) for n in range(8)]
    data = dump_within(cases, 400_000)
    assert 100_000 < len(data) <= 400_000
    for case, back in zip(cases, parse_cases(data, "f"), strict=True):
        assert torch.equal(back.outputs["y"], case.outputs["y"][:: back.strides["y"]])


def test_a_file_for_images_holds_none(tmp_path: Path) -> None:
    """An export of a model for images of 224x224: small, and checked by all its cases."""
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 224, "patch_size": 14}
    tiny_model("dinov2", "image-feature-extraction", **sizes).save_pretrained(tmp_path)
    report = export(ExportRequest(str(tmp_path), tmp_path / "model.pt", backend="plain", tune="off"))
    with artifact_file.open_archive(report.output) as archive:
        golden = artifact_file.read_part(archive, "golden.safetensors")
    assert golden is not None and len(golden) < 2_000_000
    cases = parse_cases(golden, "f")
    assert {"pixel_values"} == {name for case in cases for name in case.recipes}
    assert max(case.inputs["pixel_values"].numel() for case in cases) >= 2 * 3 * 224 * 224
    manifest, found = check_golden(report.output)
    assert found and all(one.within(manifest.tolerance) for one in found)
    session = runtime.load(report.output)
    assert session(pixel_values=cases[0].inputs["pixel_values"])
