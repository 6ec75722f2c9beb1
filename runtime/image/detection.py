"""From the outputs of detectors and segmenters to objects and classes of pixels, as transformers' processors do it."""

from __future__ import annotations

import torch

from runtime.format.manifest import PictureResults
from runtime.image.results import Box, Detection, Segmentation


def scored(rules: PictureResults, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, numbers of classes and numbers of queries: of each query, or of the best pairs of query and class.

    Args:
        rules: the artifact's.
        logits: of one picture, [queries, classes].
    """
    if rules.scores == "softmax":
        # The last class is that there is no object.
        scores, classes = logits.softmax(-1)[:, :-1].max(-1)
        return scores, classes, torch.arange(len(scores))
    count = logits.numel() if rules.most is None else min(rules.most, logits.numel())
    scores, places = torch.topk(logits.sigmoid().flatten(), count)
    return scores, places % logits.shape[1], torch.div(places, logits.shape[1], rounding_mode="floor")


def objects(
    rules: PictureResults, size: tuple[int, int], logits: torch.Tensor, boxes: torch.Tensor, threshold: float
) -> list[Detection]:
    """The objects with a score above the threshold, in the order of the queries or best first.

    Args:
        rules: the artifact's.
        size: height and width of the picture.
        logits: [queries, classes].
        boxes: [queries, 4]: centre, width and height, as parts of the picture's.
        threshold: the score.
    """
    scores, classes, queries = scored(rules, logits)
    kept = scores > threshold
    x, y, width, height = boxes[queries[kept]].unbind(-1)
    corners = torch.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], -1)
    corners = corners * torch.tensor([size[1], size[0], size[1], size[0]], dtype=corners.dtype)
    return [
        Detection(rules.classes[number], score, Box(*corner))
        for number, score, corner in zip(classes[kept].tolist(), scores[kept].tolist(), corners.tolist(), strict=True)
    ]


def query_classes(
    rules: PictureResults, size: tuple[int, int], classes: torch.Tensor, masks: torch.Tensor
) -> Segmentation:
    """The class of each pixel, by the masks of queries, each weighted with the probabilities of its classes.

    Args:
        rules: the artifact's.
        size: height and width of the picture.
        classes: logits, [queries, classes], the last class being none.
        masks: logits, [queries, rows, columns].
    """
    if rules.mask_size is not None:
        masks = torch.nn.functional.interpolate(
            masks.unsqueeze(0), size=list(rules.mask_size), mode="bilinear", align_corners=False
        )[0]
    weights = classes.unsqueeze(0).softmax(-1)[..., :-1]
    return pixel_classes(rules, size, torch.einsum("bqc, bqhw -> bchw", weights, masks.unsqueeze(0).sigmoid())[0])


def pixel_classes(rules: PictureResults, size: tuple[int, int], logits: torch.Tensor) -> Segmentation:
    """The class with the largest logit at each pixel of the picture.

    Args:
        rules: the artifact's.
        size: height and width of the picture.
        logits: [classes, rows, columns].
    """
    resized = torch.nn.functional.interpolate(logits.unsqueeze(0), size=size, mode="bilinear", align_corners=False)
    return Segmentation(resized[0].argmax(0), rules.classes)
