"""SAM with points and boxes: as transformers' own model and processor, at numbers of points that were not traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import runtime
from exporter import ExportRequest, Report, export
from runtime import Session
from runtime.commands.main import main
from runtime.errors import (
    ArtifactFailedError,
    InputNameError,
    InputSizeError,
    InputTaskError,
    InputTypeError,
    InputValueError,
    ManifestDamagedError,
)
from runtime.format.codec import to_json
from tests.test_artifact import rewrite

pytest.importorskip("PIL")
from PIL import Image

SIDE = 64
SIZES = [(40, 90), (120, 64), (64, 64)]
PROCESSOR = {
    "image_processor_type": "SamImageProcessor",
    "size": {"longest_edge": SIDE},
    "mask_size": {"longest_edge": SIDE // 4},
    "pad_size": {"height": SIDE, "width": SIDE},
    "mask_pad_size": {"height": SIDE // 4, "width": SIDE // 4},
}


def picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


def tiny() -> Any:
    torch.manual_seed(5)
    vision = {
        "hidden_size": 16,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "mlp_dim": 32,
        "initializer_range": 0.1,
    }
    prompts = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder, initializer_range=0.3
    )
    model = transformers.SamModel(config).eval()
    with torch.no_grad():
        # Tables of positions begin as zeros.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam")
    tiny().save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return path


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return export(ExportRequest(str(folder), folder / "model.pt"))


@pytest.fixture
def session(report: Report) -> Session:
    return runtime.load(report.output)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return transformers.SamModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return transformers.SamProcessor(transformers.AutoImageProcessor.from_pretrained(folder))


def test_a_folder_says_that_it_takes_prompts(report: Report) -> None:
    assert report.manifest.task == "mask-generation"
    assert [spec.name for spec in report.manifest.inputs] == ["pixel_values", "input_points", "input_labels"]
    assert report.manifest.prompts is not None and report.manifest.preprocessing is not None
    # Each backend could be built and timed.
    assert not any("failed" in choice for choice in report.choices)
    assert {one.candidate.split()[0] for one in report.manifest.timings} >= {"onednn", "plain"}
    # No axis of the prompts was given up.
    axes = {axis.name: axis for spec in report.manifest.inputs for axis in spec.axes}
    assert (axes["prompts"].minimum, axes["prompts"].maximum) == (1, 32)
    assert (axes["points"].minimum, axes["points"].maximum) == (1, 16)


def prompts_of(kind: str, prompts: int, count: int, size: tuple[int, int]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(prompts * 100 + count)
    scale = torch.tensor([size[1], size[0]])
    given: dict[str, Any] = {}
    if kind != "boxes":
        given["points"] = (torch.rand(prompts, count, 2, generator=generator) * scale).tolist()
        given["labels"] = torch.randint(0, 2, (prompts, count), generator=generator).tolist()
    if kind != "points":
        ends = torch.rand(prompts, 2, 2, generator=generator) * scale
        given["boxes"] = torch.cat([ends.amin(dim=1), ends.amax(dim=1)], dim=1).tolist()
    return given


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("prompts", "count"), [(1, 1), (2, 3), (3, 7), (1, 2)])
@pytest.mark.parametrize("kind", ["points", "boxes", "both"])
def test_masks_are_those_of_the_processor(
    session: Session, model: Any, processor: Any, kind: str, prompts: int, count: int, size: tuple[int, int]
) -> None:
    pixels = picture(*size)
    given = prompts_of(kind, prompts, count, size)
    image: Any = session.image
    (ours,) = image.segment([pixels], **{name: [value] for name, value in given.items()})
    inputs = processor(
        Image.fromarray(pixels.numpy()),
        **{f"input_{name}": [value] for name, value in given.items()},
        return_tensors="pt",
    )
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        expected = model(**inputs)
    (masks,) = processor.post_process_masks(expected.pred_masks, *sizes)
    assert ours.masks.shape == masks.shape == (prompts, 3, *size)
    assert float((ours.masks != masks).float().mean()) < 2e-3
    assert 0.01 < float(masks.float().mean()) < 0.99
    assert torch.allclose(ours.scores, expected.iou_scores[0], atol=1e-3)
    assert ours.best.shape == (prompts, *size)


def test_tensors_of_the_processor_go_in_as_they_are(session: Session, model: Any, processor: Any) -> None:
    size = (50, 80)
    for number in (1, 2, 6):
        points = prompts_of("points", 2, number, size)["points"]
        inputs = processor(Image.fromarray(picture(*size).numpy()), input_points=[points], return_tensors="pt")
        given = {"pixel_values": inputs["pixel_values"], "input_points": inputs["input_points"].float()}
        with torch.no_grad():
            expected = model(**given)
        found = session(**given)
        assert torch.allclose(found["pred_masks"], expected.pred_masks, atol=1e-3)
        assert torch.allclose(found["iou_scores"], expected.iou_scores, atol=1e-3)


def test_pictures_do_not_depend_on_their_neighbours(session: Session) -> None:
    pictures = [picture(*SIZES[0]), picture(*SIZES[0]), torch.zeros(3, 3, dtype=torch.uint8)]
    mixed: list[Any] = session.image.segment(
        pictures, points=[[[(10, 10)]], [[(10, 10), (50, 30)]], [[(1, 1)]]], errors="return"
    )
    assert isinstance(mixed[2], runtime.ExportedModelError)
    (first,) = session.image.segment(pictures[:1], points=[[[(10, 10)]]])
    (second,) = session.image.segment(pictures[1:2], points=[[[(10, 10), (50, 30)]]])
    assert torch.equal(mixed[0].masks, first.masks) and torch.equal(mixed[1].scores, second.scores)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, InputTypeError, "without prompts"),
        ({"labels": [[[1]]]}, InputTypeError, "labels without points"),
        ({"points": [[[(1, 2, 3)]]]}, InputSizeError, "x and y"),
        ({"points": [[]]}, InputSizeError, "none of them empty"),
        ({"points": [[[(1, 2)], [(1, 2), (3, 4)]]]}, InputTypeError, "as many for each prompt"),
        ({"points": [[[(1, 2)]]], "labels": [[[2]]]}, InputValueError, "neither 0 nor 1"),
        ({"points": [[[(1, 2)]]], "labels": [[[1, 1]]]}, InputSizeError, "a label per point"),
        ({"points": [[[(1, float("nan"))]]]}, InputValueError, "not finite"),
        ({"boxes": [[(1, 2, 3)]]}, InputSizeError, "left, top, right and bottom"),
        ({"boxes": [[(1, 2, 3, 4)]], "points": [[[(1, 2)], [(3, 4)]]]}, InputSizeError, "one per prompt"),
        ({"points": [[[(1, 2)]] * 33]}, InputSizeError, "1 to 32"),
        ({"points": [[[(1, 2)]], [[(1, 2)]]]}, InputTypeError, "of each picture"),
        ({"points": "left"}, InputTypeError, "of each picture"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(
    session: Session, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        image: Any = session.image
        image.segment([picture(30, 40)], **given)


def test_boxes_for_some_prompts_alone_are_refused(session: Session) -> None:
    pixels, points = torch.zeros(1, 3, SIDE, SIDE), torch.rand(1, 2, 2, 2) * SIDE
    with pytest.raises(ArtifactFailedError, match="either each prompt has one box"):
        session(pixel_values=pixels, input_points=points, input_labels=torch.tensor([[[2, 3], [1, 0]]]))
    with pytest.raises(InputValueError, match="-10 to 3"):
        session(pixel_values=pixels, input_points=points, input_labels=torch.tensor([[[4, 3], [1, 0]]]))
    with pytest.raises(InputNameError, match="unknown input 'input_boxes'"):
        session(pixel_values=pixels, input_boxes=torch.zeros(1, 1, 4))


def test_other_calls_say_what_is_missing(session: Session) -> None:
    with pytest.raises(InputTaskError, match="segment, with points or boxes"):
        session.image.numbers([picture(30, 40)])
    with pytest.raises(InputTaskError, match="detect on an artifact for mask-generation"):
        session.image.detect([picture(30, 40)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"longest_side": 0}, "padded_size"),
        ({"padded_size": [32]}, "padded_size"),
        ({"padded_size": [32, 64]}, "padded_size"),
        ({"padded_size": [64, 2**14]}, "padded_size"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    report: Report, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    manifest = json.loads(to_json(runtime.read_manifest(report.output)))
    manifest["prompts"] |= change
    file = tmp_path / "model.pt"
    rewrite(Path(report.output), file, {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(ManifestDamagedError, match=words):
        runtime.read_manifest(file)


def test_the_command_marks_one_object(
    report: Report, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.png"
    Image.fromarray(picture(40, 90).numpy()).save(file)
    command = ["predict", report.output, "--image", str(file)]
    assert main([*command, "--point", "10,20", "--point", "30,5", "--box", "3,4,60,30"]) == 0
    row = json.loads(capsys.readouterr().out)
    (expected,) = session.image.segment([file], points=[[[(10, 20), (30, 5)]]], boxes=[[(3, 4, 60, 30)]])
    assert [mask["score"] for mask in row["masks"]] == sorted(expected.scores[0].tolist(), reverse=True)
    assert row["masks"][0]["pixels"] == int(expected.best.sum()) > 0
    left, top, right, bottom = row["masks"][0]["box"]
    inside = expected.best[0, top:bottom, left:right]
    assert int(inside.sum()) == int(expected.best.sum()) and inside[0].any() and inside[:, -1].any()
    assert main(command) == 1 and "without prompts" in capsys.readouterr().err
    assert main([*command, "--top-k", "2"]) == 1
    assert "pictures for image-classification" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--point", "10"])


def test_prompts_are_for_their_task(tiny_artifact: Path, tmp_path: Path) -> None:
    manifest = json.loads(to_json(runtime.read_manifest(tiny_artifact)))
    manifest["prompts"] = {"longest_side": 64, "padded_size": [64, 64]}
    file = tmp_path / "model.pt"
    rewrite(tiny_artifact, file, {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(ManifestDamagedError, match="input_points and input_labels"):
        runtime.read_manifest(file)
