"""`session.image`: labels, vectors, boxes and classes of pixels as transformers' pipelines and processors give them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
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
    ExtraMissingError,
    InputFileError,
    InputRankError,
    InputSizeError,
    InputTaskError,
    InputTypeError,
    InputValueError,
    ManifestDamagedError,
)
from runtime.format.codec import to_json
from runtime.format.manifest import Axis, Preprocessing
from tests.test_artifact import rewrite

pytest.importorskip("PIL")
from PIL import Image

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SEGFORMER = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
SIZES = [(1, 1), (3, 70), (64, 48), (120, 333), (200, 95)]


def picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


def pillow(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.numpy())


PICTURES = [picture(*size) for size in SIZES]


def make(kind: str) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(3)
    square = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    labels = {"id2label": {0: "cat", 1: "dog", 2: "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}}
    if kind == "vit":
        config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8, **labels)
        return transformers.ViTForImageClassification(config), square
    if kind == "embed":
        crop = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40}, "resample": 3}
        crop |= {"do_center_crop": True, "crop_size": {"height": 28, "width": 28}}
        config = transformers.Dinov2Config(**SMALL, image_size=28, patch_size=14)
        return transformers.Dinov2Model(config), crop
    if kind == "yolos":
        edges = {"image_processor_type": "YolosImageProcessor", "size": {"height": 32, "width": 48}}
        config = transformers.YolosConfig(**SMALL, image_size=[32, 48], patch_size=8, num_detection_tokens=7, **labels)
        return transformers.YolosForObjectDetection(config), edges
    if kind == "segformer":
        config = transformers.SegformerConfig(**SEGFORMER, decoder_hidden_size=16, **labels)
        square = {"image_processor_type": "SegformerImageProcessor", "size": {"height": 64, "width": 64}}
        return transformers.SegformerForSemanticSegmentation(config), square
    raise AssertionError(kind)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Report]]:
    known: dict[str, tuple[Path, Report]] = {}

    def get(kind: str) -> tuple[Path, Report]:
        if kind not in known:
            path = tmp_path_factory.mktemp(kind)
            model, processor = make(kind)
            model.save_pretrained(path)
            (path / "preprocessor_config.json").write_text(json.dumps(processor))
            task = {"embed": "image-feature-extraction"}.get(kind, "auto")
            request = ExportRequest(str(path), path / "model.pt", backend="plain", tune="off", task=task)
            known[kind] = path, export(request)
        return known[kind]

    return get


@pytest.fixture
def session(folders: Callable[[str], tuple[Path, Report]]) -> Callable[[str], Session]:
    return lambda kind: runtime.load(folders(kind)[0] / "model.pt")


def test_labels_are_those_of_the_pipeline(folders: Any, session: Callable[[str], Session]) -> None:
    path, report = folders("vit")
    assert any("preprocessed in the file" in choice for choice in report.choices)
    pipe = transformers.pipeline("image-classification", model=str(path))
    for ours, theirs in zip(
        session("vit").image.classify(PICTURES), pipe([pillow(one) for one in PICTURES]), strict=True
    ):
        assert list(ours.scores) == [one["label"] for one in theirs]
        assert ours.label == theirs[0]["label"]
        assert ours.score == pytest.approx(theirs[0]["score"], abs=1e-5)


def test_the_best_labels_alone(session: Callable[[str], Session]) -> None:
    (found,) = session("vit").image.classify([PICTURES[2]], top_k=2)
    assert len(found.scores) == 2
    with pytest.raises(InputValueError, match="top_k is 0"):
        session("vit").image.classify(PICTURES, top_k=0)


def test_vectors_are_those_of_the_model(folders: Any, session: Callable[[str], Session]) -> None:
    path, _ = folders("embed")
    model = transformers.AutoModel.from_pretrained(path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    image = session("embed").image
    parts = image.embed(PICTURES, pool=False)
    for one, vector, part in zip(PICTURES, image.embed(PICTURES), parts, strict=True):
        with torch.no_grad():
            expected = model(**processor(pillow(one), return_tensors="pt"))
        assert torch.allclose(vector, expected.pooler_output[0], atol=1e-4)
        assert torch.allclose(part, expected.last_hidden_state[0], atol=1e-4)


def test_objects_are_those_of_the_processor(folders: Any, session: Callable[[str], Session]) -> None:
    path, _ = folders("yolos")
    model = transformers.AutoModelForObjectDetection.from_pretrained(path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    found = session("yolos").image.detect(PICTURES, threshold=0.2)
    assert any(found)
    for one, ours in zip(PICTURES, found, strict=True):
        with torch.no_grad():
            outputs = model(pixel_values=processor(pillow(one), return_tensors="pt")["pixel_values"])
        (theirs,) = processor.post_process_object_detection(outputs, 0.2, [tuple(one.shape[:2])])
        assert [detection.label for detection in ours] == [model.config.id2label[int(n)] for n in theirs["labels"]]
        assert [detection.score for detection in ours] == pytest.approx(theirs["scores"].tolist(), abs=1e-4)
        boxes = [[box.left, box.top, box.right, box.bottom] for box in (detection.box for detection in ours)]
        assert torch.allclose(torch.tensor(boxes), theirs["boxes"], atol=0.05)


def test_classes_of_pixels_are_those_of_the_processor(folders: Any, session: Callable[[str], Session]) -> None:
    path, _ = folders("segformer")
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(path).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    for one, ours in zip(PICTURES, session("segformer").image.segment(PICTURES), strict=True):
        with torch.no_grad():
            outputs = model(**processor(pillow(one), return_tensors="pt"))
        (theirs,) = processor.post_process_semantic_segmentation(outputs, [tuple(one.shape[:2])])
        assert ours.classes.shape == one.shape[:2]
        assert ours.labels == ("cat", "dog", "bird")
        assert float((ours.classes != theirs).float().mean()) < 1e-3


def test_a_picture_may_be_a_file_an_array_or_one_of_pillow(session: Callable[[str], Session], tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    pillow(PICTURES[3]).save(file)
    image = session("vit").image
    ways = [PICTURES[3], PICTURES[3].numpy(), pillow(PICTURES[3]), file, str(file)]
    first, *others = image.classify(ways)
    assert all(other.scores == pytest.approx(first.scores, abs=1e-6) for other in others)
    # Lying on its side, as cameras save it.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    pillow(PICTURES[3].rot90(1).contiguous()).save(turned, exif=exif)
    (upright,) = image.classify([turned])
    assert upright.scores == pytest.approx(first.scores, abs=1e-6)


def test_one_bad_picture_does_not_spoil_the_others(session: Callable[[str], Session], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    pillow(PICTURES[2]).save(broken)
    broken.write_bytes(broken.read_bytes()[:300])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    given = [
        PICTURES[2],
        broken,
        text,
        tmp_path / "missing.png",
        torch.zeros(5, 5, 4, dtype=torch.uint8),
        torch.zeros(5, 5, dtype=torch.uint8),
        torch.zeros(5, 5, 3),
        torch.zeros(0, 5, 3, dtype=torch.uint8),
        None,
        PICTURES[0],
    ]
    image = session("vit").image
    found: list[Any] = image.classify(given, errors="return")
    kinds = [type(one) for one in found]
    assert kinds[1:4] == [InputFileError] * 3
    assert kinds[4:9] == [InputSizeError, InputRankError, InputTypeError, InputSizeError, InputTypeError]
    assert "the picture has 4 channels; expected 3" in str(found[4])
    assert all("\n" not in str(error) for error in found[1:9])
    good = [found[0], found[9]]
    for one, alone in zip(good, image.classify([PICTURES[2], PICTURES[0]]), strict=True):
        assert one.scores == pytest.approx(alone.scores, abs=1e-5)
    with pytest.raises(InputFileError, match="picture 2: cannot read"):
        image.classify(given)


def test_what_an_artifact_cannot_do_is_said(session: Callable[[str], Session], tiny_session: Session) -> None:
    with pytest.raises(InputTaskError, match="detect on an artifact for image-classification"):
        session("vit").image.detect(PICTURES)
    with pytest.raises(InputTaskError, match="makes no inputs of pictures"):
        tiny_session.image.classify(PICTURES)
    with pytest.raises(InputTypeError, match="pictures is"):
        session("vit").image.classify([])
    with pytest.raises(InputValueError, match="threshold is 2"):
        session("yolos").image.detect(PICTURES, threshold=2)


def test_the_command_prints_a_line_per_picture(
    folders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], session: Callable[[str], Session]
) -> None:
    file, broken = tmp_path / "one.png", tmp_path / "broken.png"
    pillow(PICTURES[3]).save(file)
    broken.write_text("no picture")
    for kind, options in (
        ("vit", ["--top-k", "2"]),
        ("yolos", ["--threshold", "0.1"]),
        ("embed", []),
        ("segformer", []),
    ):
        artifact = folders(kind)[0] / "model.pt"
        assert main(["predict", str(artifact), "--image", str(broken), "--image", str(file), *options]) == 1
        printed = capsys.readouterr()
        bad, good = map(json.loads, printed.out.splitlines())
        assert bad["image"] == str(broken) and "cannot read" in bad["error"]
        assert good["image"] == str(file) and "error" not in good
        assert "1 of 2 pictures failed" in printed.err
        if kind == "vit":
            (expected,) = session(kind).image.classify([file], top_k=2)
            assert good["scores"] == pytest.approx(expected.scores) and good["label"] == expected.label
        if kind == "segformer":
            assert sum(good["pixels"].values()) == PICTURES[3].shape[0] * PICTURES[3].shape[1]
    artifact = folders("yolos")[0] / "model.pt"
    assert main(["predict", str(artifact), "--image", str(file), "--threshold", "0"]) == 0
    (every,) = session("yolos").image.detect([file], threshold=0)
    assert len(json.loads(capsys.readouterr().out)["objects"]) == len(every) > 0
    artifact = folders("vit")[0] / "model.pt"
    assert main(["predict", str(artifact), "--image", str(file), "--threshold", "0.1"]) == 1
    assert "--threshold with pictures for image-classification" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("preprocessing", {"inputs": ["pixels"]}, "preprocessing.inputs"),
        ("preprocessing", {"inputs": []}, "preprocessing.inputs"),
        ("preprocessing", {"kind": "audio"}, "preprocessing.axes"),
        ("preprocessing", {"kind": "video"}, "preprocessing.kind"),
        ("preprocessing", {"rate": 16000}, "preprocessing.rate"),
        ("preprocessing", {"axes": []}, "preprocessing.axes"),
        ("pictures", {"classes": ["cat"]}, "pictures.classes"),
        ("pictures", {"scores": "sum"}, "pictures.scores"),
        ("pictures", {"most": 0}, "pictures.most"),
        ("pictures", {"mask_size": [1]}, "pictures.mask_size"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    folders: Any, tmp_path: Path, field: str, change: dict[str, Any], words: str
) -> None:
    source = folders("vit")[0] / "model.pt"
    manifest = json.loads(to_json(runtime.read_manifest(source)))
    manifest[field] |= change
    file = tmp_path / "model.pt"
    rewrite(source, file, {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(ManifestDamagedError, match=words):
        runtime.read_manifest(file)


def test_a_manifest_that_promises_a_method_that_is_not_there(tiny_artifact: Path, tmp_path: Path) -> None:
    manifest = runtime.read_manifest(tiny_artifact)
    axes = (Axis("height", 1, 9), Axis("width", 1, 9), Axis("channels", 3, 3))
    promised = dataclasses.replace(manifest, preprocessing=Preprocessing("image", axes, ("input_ids",)))
    file = tmp_path / "model.pt"
    rewrite(tiny_artifact, file, {"manifest.json": to_json(promised).encode()})
    with pytest.raises(ManifestDamagedError, match="no method `preprocess`"):
        runtime.load(file)


def test_files_need_pillow_and_arrays_do_not(
    session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = session("vit").image
    for name in [name for name in sys.modules if name == "PIL" or name.startswith("PIL.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert image.classify([PICTURES[2]])
    with pytest.raises(ExtraMissingError, match=r"pillow; install export-model\[image\]"):
        image.classify(["one.png"])
