"""`session.image`: one method per task. Each returns a list with one result per picture, in order.

A picture is a torch tensor or NumPy array of uint8 [height, width, 3] in the order red, green, blue; with the package
pillow also a path, or a picture of Pillow. InputTaskError is raised if the artifact is for another task, or cannot
preprocess pictures. With `errors="raise"` the first error is raised and names its picture. With `errors="return"` the
error of a picture that is refused, or on which the model fails, takes the place of its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch

from runtime.errors import InputTaskError, InputTypeError, InputValueError
from runtime.format.manifest import Manifest, PictureResults
from runtime.image.batched import Errors, Inputs, Outputs, PictureRunner
from runtime.image.detection import objects, pixel_classes, query_classes
from runtime.image.prompts import inputs_of, marked
from runtime.image.results import Detection, Masks, Segmentation
from runtime.printing import shown
from runtime.text.classification import SCORES
from runtime.text.results import Classification, classified

# Task → the method for it.
METHODS = {
    "image-classification": "classify",
    "image-feature-extraction": "embed",
    "image-embedding": "embed",
    "object-detection": "detect",
    "semantic-segmentation": "segment",
    "image-segmentation": "segment",
    "mask-generation": "segment",
}


class Image:
    """The methods of a session that take pictures. Safe to use from several threads.

    Args:
        run: runs the model: takes inputs by name, returns outputs by name.
        preprocess: makes the inputs of one picture.
        manifest: the artifact's manifest.

    Raises:
        InputTaskError: the artifact cannot preprocess pictures, or needs more than a picture.
    """

    def __init__(self, run: Callable[..., Outputs], preprocess: Callable[[Any], Inputs], manifest: Manifest) -> None:
        self._manifest = manifest
        self._runner = PictureRunner(run, preprocess, manifest)
        made = () if manifest.preprocessing is None else manifest.preprocessing.inputs
        made = made if manifest.prompts is None else (*made, "input_points", "input_labels")
        others = [spec.name for spec in manifest.inputs if spec.name not in made and spec.fill is None]
        if others:
            raise InputTaskError(
                f"the artifact takes {', '.join(others)} beside a picture",
                "an artifact that takes pictures alone",
                "call session.preprocess, and the session with all inputs",
            )

    def numbers(self, pictures: Sequence[Any], *, errors: Errors = "raise") -> list[Outputs]:
        """The model's outputs for each picture, for any task: float32, by name, without batch axis.

        Args:
            pictures: at least one.
            errors: `raise` the first error, or `return` each in its picture's place.

        Raises:
            InputError: a picture that does not fit.
        """
        if self._manifest.prompts is not None:
            raise InputTaskError("numbers on an artifact that needs prompts", "segment, with points or boxes")
        return self._runner.run(pictures, lambda _, outputs: outputs, errors)

    def classify(
        self, pictures: Sequence[Any], *, top_k: int | None = None, errors: Errors = "raise"
    ) -> list[Classification]:
        """The best label of each picture, and the scores of the best `top_k` labels; None: of all.

        Args:
            pictures: at least one.
            top_k: how many scores to keep.
            errors: `raise` the first error, or `return` each in its picture's place.

        Raises:
            InputTaskError: the artifact does not classify pictures.
            InputError: a picture or an option that does not fit.
        """
        rules = self._rules("classify")
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise InputValueError(f"top_k is {shown(top_k)}", "a whole number from 1")

        def result(_: tuple[int, int], outputs: Outputs) -> Classification:
            return classified(SCORES[rules.scores](outputs["logits"]).tolist(), rules.classes, top_k)

        return self._runner.run(pictures, result, errors)

    def embed(self, pictures: Sequence[Any], *, pool: bool = True, errors: Errors = "raise") -> list[torch.Tensor]:
        """Embeddings of float32: a vector per picture, or one per part of it, [parts, hidden].

        Args:
            pictures: at least one.
            pool: give the output that is one vector, if the artifact has one; else its first output.
            errors: `raise` the first error, or `return` each in its picture's place.

        Raises:
            InputTaskError: the artifact does not embed pictures.
            InputError: a picture that does not fit.
        """
        self._expect("embed")
        outputs = self._manifest.outputs
        pooled = (spec.name for spec in outputs if len(spec.axes) == 2 and pool)
        name = next(pooled, outputs[0].name)
        return self._runner.run(pictures, lambda _, found: found[name], errors)

    def detect(
        self, pictures: Sequence[Any], *, threshold: float = 0.5, errors: Errors = "raise"
    ) -> list[list[Detection]]:
        """The objects in each picture: label, score, and box in the picture's pixels.

        Args:
            pictures: at least one.
            threshold: objects with a larger score are kept.
            errors: `raise` the first error, or `return` each in its picture's place.

        Raises:
            InputTaskError: the artifact does not detect objects.
            InputError: a picture or an option that does not fit.
        """
        rules = self._rules("detect")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise InputValueError(f"threshold is {shown(threshold)}", "a number from 0 to 1")
        return self._runner.run(
            pictures,
            lambda size, found: objects(rules, size, found["logits"], found["pred_boxes"], threshold),
            errors,
        )

    @overload
    def segment(self, pictures: Sequence[Any], *, errors: Errors = "raise") -> list[Segmentation]: ...

    @overload
    def segment(
        self,
        pictures: Sequence[Any],
        *,
        points: Sequence[Any],
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        errors: Errors = "raise",
    ) -> list[Masks]: ...

    @overload
    def segment(self, pictures: Sequence[Any], *, boxes: Sequence[Any], errors: Errors = "raise") -> list[Masks]: ...

    def segment(
        self,
        pictures: Sequence[Any],
        *,
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        errors: Errors = "raise",
    ) -> Any:
        """The class of each pixel of each picture; or, of an artifact for mask-generation, what prompts ask for.

        Prompts are nested as transformers' SamProcessor takes them: picture → prompt → point. They are in the
        picture's own pixels. All prompts of a picture have the same number of points.

        Args:
            pictures: at least one.
            points: for each picture and prompt a list of points, (x, y).
            labels: for each picture and prompt a label per point: 1 on the object, 0 beside it. Without labels, all
                points are on the object.
            boxes: for each picture and prompt (left, top, right, bottom).
            errors: `raise` the first error, or `return` each in its picture's place.

        Raises:
            InputTaskError: the artifact does not segment pictures, or takes no prompts.
            InputError: a picture or a prompt that does not fit.
        """
        given = {"points": points, "labels": labels, "boxes": boxes}
        if self._manifest.task == "mask-generation":
            return self._mark(pictures, given, errors)
        for name, value in given.items():
            if value is not None:
                raise InputTaskError(
                    f"{name} on an artifact for {self._manifest.task}",
                    "an artifact for mask-generation",
                    f"leave {name} out",
                )
        rules = self._rules("segment")

        def result(size: tuple[int, int], found: Outputs) -> Segmentation:
            if "logits" in found:
                return pixel_classes(rules, size, found["logits"])
            return query_classes(rules, size, found["class_queries_logits"], found["masks_queries_logits"])

        return self._runner.run(pictures, result, errors)

    def _mark(self, pictures: Sequence[Any], given: dict[str, Any], errors: Errors) -> list[Masks]:
        rules = self._manifest.prompts
        if rules is None:
            raise InputTaskError(
                "the artifact does not say how places in a picture become its inputs",
                "an artifact that does; the export's choices say why it does not",
                "call the session with tensors made by the model's own processor",
            )
        for name, value in given.items():
            if value is not None and not (
                isinstance(value, (list, tuple)) and isinstance(pictures, (list, tuple)) and len(value) == len(pictures)
            ):
                raise InputTypeError(f"{name} is {shown(value)}"[:200], f"a list with the {name} of each picture")

        def further(index: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
            of_picture = {name: None if value is None else value[index] for name, value in given.items()}
            return inputs_of(rules, size, **of_picture)

        # One by one: in one call all prompts have boxes, or none has, and a picture's encoder fills the processor.
        return self._runner.run(pictures, lambda size, found: marked(rules, size, found), errors, further, batch=False)

    def _expect(self, method: str) -> None:
        task = self._manifest.task
        if METHODS.get(task) != method:
            wanted = " or ".join(name for name, known in METHODS.items() if known == method)
            remedy = f"call {METHODS.get(task, 'numbers')}"
            raise InputTaskError(f"{method} on an artifact for {task}", f"an artifact for {wanted}", remedy)

    def _rules(self, method: str) -> PictureResults:
        self._expect(method)
        if self._manifest.pictures is None:
            raise InputTaskError(
                f"the artifact does not say how {method} makes results of its outputs",
                "an artifact that does; the export's choices say why it does not",
                "call numbers, for the outputs as they are",
            )
        return self._manifest.pictures
