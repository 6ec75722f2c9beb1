"""Sizes of images: those that the model folder's own processor makes are traced, verified and declared."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

import runtime
from exporter import ExportRequest, Report, export
from exporter.loading.loader import load_source
from exporter.verification import size_trial
from runtime.errors import InputError, RequestError
from tests.conftest import tiny_model

# The processors of transformers 5 need it where torchvision is missing.
pytest.importorskip("PIL")

CROP = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}, "do_center_crop": True}
CROP |= {"crop_size": {"height": 56, "width": 56}}
EDGES = {"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 80, "longest_edge": 133}}
SQUARE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 40}}

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
MODELS: dict[str, dict[str, Any]] = {
    # Any size; the configuration says another one than the processor.
    "dinov2": SMALL | {"image_size": 112, "patch_size": 14},
    # One size alone.
    "vit": SMALL | {"image_size": 32, "patch_size": 8},
    # Its padding depends on the size, which a trace keeps.
    "mobilenet_v1": {"depth_multiplier": 0.25, "image_size": 64},
}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(kind: str, processor: dict[str, Any], joint: bool = False) -> Path:
        path = tmp_path / kind
        tiny_model(kind, "image-feature-extraction", **MODELS[kind]).save_pretrained(path)
        name = "processor_config.json" if joint else "preprocessor_config.json"
        (path / name).write_text(json.dumps({"image_processor": processor} if joint else processor))
        return path

    return make


def exported(path: Path, **options: Any) -> Report:
    settings: dict[str, Any] = {"backend": "plain", "tune": "off", "force": True} | options
    return export(ExportRequest(str(path), path / "model.pt", **settings))


def tried(report: Report) -> set[tuple[int, int]]:
    return {(case.shape["height"], case.shape["width"]) for case in report.manifest.verified}


@pytest.mark.parametrize(
    ("processor", "sizes"),
    [
        (CROP, ((56, 56),)),
        (EDGES, ((80, 106), (75, 133), (106, 80), (133, 75), (80, 80))),
        (SQUARE, ((48, 40),)),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 40}}, ((40, 40),)),
        # Rounds to multiples of 16.
        ({"image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 80, "longest_edge": 133}}, None),
        (EDGES | {"pad_size": {"height": 140, "width": 140}}, ((140, 140),)),
    ],
)
def test_the_processor_says_which_sizes_it_makes(
    folder: Callable[..., Path], processor: dict[str, Any], sizes: tuple[tuple[int, int], ...] | None
) -> None:
    path = folder("dinov2", processor)
    source = load_source(ExportRequest(str(path), "unused.pt"))
    assert sizes is None or source.image_sizes == sizes
    made = AutoImageProcessor.from_pretrained(path)(torch.zeros(3, 1080, 1920, dtype=torch.uint8), return_tensors="pt")
    assert tuple(made["pixel_values"].shape[-2:]) in source.image_sizes


@pytest.mark.parametrize("joint", [False, True])
def test_pictures_go_through_the_processor_into_the_file(folder: Callable[..., Path], joint: bool) -> None:
    path = folder("dinov2", EDGES, joint)
    report = exported(path)
    assert {(80, 106), (75, 133), (133, 75), (112, 112)} <= tried(report)
    assert any(choice.startswith("the file takes images of 80x106, 75x133, ") for choice in report.choices)
    session, model = runtime.load(report.output), AutoModel.from_pretrained(path).eval()
    generator = torch.Generator().manual_seed(0)
    for size in ((480, 640), (1080, 1920), (400, 300)):
        picture = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        pixels = AutoImageProcessor.from_pretrained(path)(picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            expected = model(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(session(pixel_values=pixels)["last_hidden_state"], expected, rtol=1e-4, atol=1e-4)


def test_sizes_that_were_asked_for_replace_them(folder: Callable[..., Path]) -> None:
    report = exported(folder("dinov2", CROP), image_sizes=((70, 98), (28, 140)), max_image_size=154)
    assert {(70, 98), (28, 140), (154, 154)} <= tried(report) and (56, 56) not in tried(report)
    session = runtime.load(report.output)
    assert session(pixel_values=torch.zeros(1, 3, 154, 154))
    with pytest.raises(InputError, match="154"):
        session(pixel_values=torch.zeros(1, 3, 168, 56))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_sizes": ((56, 56, 3),)}, "pairs of height and width"),
        ({"image_sizes": ((56, 1),)}, "image_sizes holds 1; expected pixels from 2"),
        ({"max_image_size": 40}, "max_image_size is 40; expected at least 56: the traced example is 56x56"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(
    folder: Callable[..., Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        exported(folder("dinov2", CROP), **options)


def test_sizes_of_images_for_a_model_of_texts_are_refused(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the model takes no images"):
        export(ExportRequest(str(tiny_folder()), tmp_path / "model.pt", max_image_size=224))


@pytest.mark.parametrize(
    ("kind", "processor", "size", "message"),
    [
        (
            "vit",
            CROP,
            (32, 32),
            "the file refuses images of 56x56, which the folder's processor makes; it takes height 32",
        ),
        ("mobilenet_v1", EDGES, (80, 106), "refuses images of 75x133, 106x80, 133x75, 80x80, which the folder"),
    ],
)
def test_an_export_says_what_the_processor_makes_and_the_file_refuses(
    folder: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    kind: str,
    processor: dict[str, Any],
    size: tuple[int, int],
    message: str,
) -> None:
    with caplog.at_level(logging.WARNING, "exporter"):
        report = exported(folder(kind, processor))
    assert message in caplog.text
    assert tried(report) == {size}
    assert runtime.load(report.output)(pixel_values=torch.zeros(1, 3, *size))


def test_without_pillow_the_settings_are_read(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: Any, **_options: Any) -> None:
        raise ImportError("Pillow is not installed")

    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", missing)
    source = load_source(ExportRequest(str(folder("dinov2", CROP)), "unused.pt"))
    assert source.image_sizes == ((56, 56),)
    assert any("could not be run" in note and "Pillow" in note for note in source.notes)


def test_a_trace_that_keeps_its_size_is_found_out_first(
    folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Before the original model has been run at all sizes: no candidate fails, and the first is taken."""
    path = folder("mobilenet_v1", CROP)
    report = exported(path, backend="auto")
    assert "excluded, because it was wrong there: sizes other than height 56, width 56" in report.choices
    assert "excluded, because it was wrong there" in caplog.text
    assert not any("failed" in choice for choice in report.choices)
    assert tried(report) == {(56, 56)}
    assert {case.shape["batch"] for case in report.manifest.verified} >= {1, 2, 3, 5}
    (sizes,) = (stage for stage in report.stages if stage.name == "sizes")
    assert sizes.detail.startswith("the trace is wrong at ")
    # The model that the trial was made with is another one.
    model, pixels = AutoModel.from_pretrained(path).eval(), torch.rand(4, 3, 56, 56)
    with torch.no_grad():
        expected = model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(runtime.load(report.output)(pixel_values=pixels)["last_hidden_state"], expected)


def test_a_trace_that_is_right_at_other_sizes_keeps_them(folder: Callable[..., Path]) -> None:
    report = exported(folder("dinov2", CROP), verify="quick")
    (sizes,) = (stage for stage in report.stages if stage.name == "sizes")
    assert sizes.detail.startswith("a trace is right at ")
    assert len(tried(report)) > 3


def test_a_wrong_trace_is_decided_once(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first backend is wrong at other sizes, and so is the plain trace: no other backend is tried."""
    # As if the sizes of the trial had been right by chance.
    monkeypatch.setattr(size_trial, "with_kept_sizes", lambda _adapter, plan, _request: (plan, []))
    report = exported(folder("mobilenet_v1", CROP), backend="auto")
    assert "other candidates not tried: the trace itself is wrong at the same sizes" in report.choices
    assert sum("failed: the written file is wrong" in choice for choice in report.choices) == 1
    assert tried(report) == {(56, 56)}
