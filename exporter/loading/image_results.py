"""How a model's outputs for pictures become results: compared with the folder's own processor, on random outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from exporter.loading.score_activation import labels_of
from runtime.errors import CheckpointError
from runtime.format.manifest import PictureResults
from runtime.format.validation import PICTURE_LOGITS
from runtime.image.detection import objects, pixel_classes, query_classes

_QUERIES = 150
_SIZE = (333, 251)


def picture_results(processor: Any, config: Any, task: str) -> tuple[PictureResults | None, list[str]]:
    """What the manifest says of them, and notes; None for other tasks, and where the processor does something else.

    Args:
        processor: the folder's, of transformers.
        config: the model's configuration.
        task: the task's name.
    """
    if task not in PICTURE_LOGITS:
        return None, []
    try:
        classes = labels_of(config)
    except CheckpointError as error:
        return None, [f"no results for pictures: {error.found}"]
    if task == "image-classification":
        return PictureResults(classes, _scores(config, len(classes))), []
    if task == "semantic-segmentation":
        known, agrees = [PictureResults(classes, "none")], _segments_alike
    elif task == "image-segmentation":
        # As they are, as Mask2Former has it, and at the size of the processor.
        sizes = (None, (384, 384), _own_size(processor))
        known, agrees = [PictureResults(classes, "softmax", mask_size=size) for size in sizes], _segments_by_queries
    else:
        best = [PictureResults(classes, "sigmoid", most) for most in (100, _queries(config))]
        known, agrees = [PictureResults(classes, "softmax"), *best], _detects_alike
    right = next((found for found in known if agrees(processor, found)), None)
    if right is not None:
        return right, []
    return None, [f"no results for pictures: {type(processor).__name__} makes them in a way that is not known"]


def _scores(config: Any, count: int) -> Any:
    """As transformers' pipeline for images chooses."""
    if config.problem_type == "regression":
        return "none"
    return "sigmoid" if config.problem_type == "multi_label_classification" or count == 1 else "softmax"


def _queries(config: Any) -> int:
    """RT-DETR keeps as many pairs as it has queries."""
    number = getattr(config, "num_queries", None)
    return number if isinstance(number, int) and number > 0 else 300


def _detects_alike(processor: Any, found: PictureResults) -> bool:
    logits, boxes = _random(found, _QUERIES)
    if found.most is not None and found.most > 100:
        logits, boxes = _random(found, found.most)
    ours = objects(found, _SIZE, logits, boxes, 0.3)
    outputs = SimpleNamespace(logits=logits.unsqueeze(0), pred_boxes=boxes.unsqueeze(0))
    try:
        (theirs,) = processor.post_process_object_detection(outputs, threshold=0.3, target_sizes=[_SIZE])
    # Whatever a processor of another kind of model raises, or the lack of the method.
    except Exception:  # noqa: BLE001
        return False
    if not ours or len(ours) != len(theirs["scores"]):
        return False
    names = [found.classes[number] for number in theirs["labels"].tolist()]
    corners = torch.tensor([[one.box.left, one.box.top, one.box.right, one.box.bottom] for one in ours])
    return (
        [one.label for one in ours] == names
        and torch.allclose(torch.tensor([one.score for one in ours]), theirs["scores"].float(), atol=1e-6)
        and torch.allclose(corners, theirs["boxes"].float(), atol=1e-3)
    )


def _random(found: PictureResults, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(queries)
    nothing = found.scores == "softmax"
    logits = torch.randn(queries, len(found.classes) + nothing, generator=generator) * 4
    return logits, torch.rand(queries, 4, generator=generator)


def _segments_alike(processor: Any, found: PictureResults) -> bool:
    logits = torch.randn(len(found.classes), 21, 17, generator=torch.Generator().manual_seed(0))
    return _same_classes(
        processor, SimpleNamespace(logits=logits.unsqueeze(0)), pixel_classes(found, _SIZE, logits).classes
    )


def _segments_by_queries(processor: Any, found: PictureResults) -> bool:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(30, len(found.classes) + 1, generator=generator) * 4
    masks = torch.randn(30, 21, 17, generator=generator) * 4
    outputs = SimpleNamespace(
        class_queries_logits=classes.unsqueeze(0), masks_queries_logits=masks.unsqueeze(0), patch_offsets=None
    )
    return _same_classes(processor, outputs, query_classes(found, _SIZE, classes, masks).classes)


def _same_classes(processor: Any, outputs: Any, ours: torch.Tensor) -> bool:
    try:
        (theirs,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[_SIZE])
    # As above.
    except Exception:  # noqa: BLE001
        return False
    return torch.equal(theirs, ours)


def _own_size(processor: Any) -> tuple[int, int]:
    size = getattr(processor, "size", None) or {}
    sides = [size.get(name) if hasattr(size, "get") else None for name in ("height", "width", "shortest_edge")]
    height, width = (side or sides[2] or 1 for side in sides[:2])
    return int(height), int(width)
