"""Comparisons of images and sounds: the folder's own processor makes the inputs, its model gives the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor

from runtime import Session
from tests.model_matrix.layouts.layout import Mismatch

# Of the largest value of an output: for the same inputs, and for inputs that the file itself makes, which may differ
# from the processor's by one step of 255.
_ERROR, _OWN_INPUTS = 1e-3, 2e-2
# Heights and widths of photos.
PHOTOS = ((480, 640), (1080, 1920), (640, 480))
RATE = 16000


def photo(height: int, width: int, seed: int = 0) -> Any:
    """An image of uint8, [height, width, 3]: soft forms and noise."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [127 + 100 * np.sin((3 + k + seed) * x * 6 + k) * np.cos((2 + k) * y * 6) for k in range(3)]
    noise = chance.integers(-20, 20, (height, width, 3))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


def sound(seconds: float, seed: int = 0) -> Any:
    """Samples of float32 at 16 kHz: a tone that swells, and noise."""
    chance = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * math.pi * (200 + 40 * seed) * t) * (1 + np.sin(3 * t))
    return (tone + 0.05 * chance.standard_normal(len(t))).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """Inputs, the outputs of the model, and the picture or sound that the inputs were made of, if it was one."""

    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    raw: Any = None


def _model(folder: Path, architecture: str) -> Any:
    return getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).eval()


def _cases(model: Any, batches: Sequence[Mapping[str, Any]], raw: Sequence[Any] = ()) -> list[Case]:
    cases = []
    for batch, one in zip_longest(batches, raw):
        inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        with torch.no_grad():
            made = model(**inputs)
        outputs = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
        cases.append(Case(inputs, outputs, one))
    return cases


def compare_outputs(session: Session, cases: Sequence[Case]) -> float:
    """The largest difference of an output, as a share of its largest value."""
    errors = [0.0]
    for case in cases:
        shape = " ".join(f"{name} {tuple(value.shape)}" for name, value in case.inputs.items())
        known = {spec.name for spec in session.manifest.inputs}
        found = session(**{name: value for name, value in case.inputs.items() if name in known})
        shared = sorted(set(found) & set(case.outputs))
        if not shared:
            raise Mismatch(f"outputs {', '.join(found)}, expected some of {', '.join(case.outputs)}")
        for name in shared:
            errors.append(_difference(found[name].float(), case.outputs[name].float(), f"{name} for {shape}"))
        if case.raw is not None and getattr(session.manifest, "preprocessing", None) is not None:
            _compare_raw(session, case, f"for {shape}, made by the file")
    return max(errors)


def _compare_raw(session: Any, case: Case, what: str) -> None:
    """The same outputs from the picture or the sound itself, where the file makes its inputs."""
    picture = case.raw.dtype == np.uint8
    found = session.image.numbers([case.raw])[0] if picture else session.audio.numbers(case.raw, RATE)
    for name in sorted(set(found) & set(case.outputs)):
        _difference(found[name].float(), case.outputs[name][0].float(), f"{name} {what}", _OWN_INPUTS)


def _difference(found: torch.Tensor, expected: torch.Tensor, what: str, most: float = _ERROR) -> float:
    if found.shape != expected.shape:
        raise Mismatch(f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-9))
    if not error <= most:
        raise Mismatch(f"{what}: differs by {error:.1e} of the largest value")
    return error


@dataclass(frozen=True)
class Images:
    """Photos of several sizes through the folder's image processor, alone and in a batch."""

    architecture: str
    photos: Sequence[tuple[int, int]] = PHOTOS

    def expected(self, folder: Path) -> Any:
        """A case per photo, and one of all photos where the processor makes them fit."""
        processor = AutoImageProcessor.from_pretrained(folder)
        images = [photo(*size, seed=number) for number, size in enumerate(self.photos)]
        batches = [processor(images=[image], return_tensors="pt") for image in images]
        if len({batch["pixel_values"].shape for batch in batches}) == 1 or getattr(processor, "do_pad", False):
            batches.append(processor(images=images, return_tensors="pt"))
        return _cases(_model(folder, self.architecture), batches, images)

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of an output."""
        return compare_outputs(session, expected)


@dataclass(frozen=True)
class Pixels:
    """Pixels of sizes that the folder's image processor makes, where it needs a package that is not here."""

    architecture: str
    sizes: Sequence[tuple[int, int]]

    def expected(self, folder: Path) -> Any:
        """A case of two images per size."""
        chance = torch.Generator().manual_seed(0)
        batches = [{"pixel_values": torch.randn(2, 3, *size, generator=chance)} for size in self.sizes]
        return _cases(_model(folder, self.architecture), batches)

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of an output."""
        return compare_outputs(session, expected)


@dataclass(frozen=True)
class ImagesAndTexts:
    """Photos and texts through the folder's processor, into a model of both."""

    architecture: str
    padding: Any = True

    def expected(self, folder: Path) -> Any:
        """Two photos with three texts."""
        processor = AutoProcessor.from_pretrained(folder)
        texts = ["a bank in Paris", "Hi", "the train is late"]
        images = [photo(*size, seed=number) for number, size in enumerate(PHOTOS[:2])]
        batch = processor(text=texts, images=images, padding=self.padding, return_tensors="pt")
        return _cases(_model(folder, self.architecture), [batch])

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of an output."""
        return compare_outputs(session, expected)


@dataclass(frozen=True)
class Sounds:
    """Sounds of several lengths through the folder's feature extractor, alone and in a batch."""

    architecture: str
    seconds: Sequence[float] = (10.0, 2.7)
    padding: Any = True

    def expected(self, folder: Path) -> Any:
        """A case per sound, and one of all."""
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        waves = [sound(length, seed=number) for number, length in enumerate(self.seconds)]
        options = {"sampling_rate": RATE, "return_tensors": "pt", "padding": self.padding}
        batches = [extractor(some, **options) for some in ([waves[0]], waves)]
        return _cases(_model(folder, self.architecture), batches, waves[:1])

    def compare(self, session: Session, expected: Any) -> float:
        """The largest difference of an output."""
        return compare_outputs(session, expected)
