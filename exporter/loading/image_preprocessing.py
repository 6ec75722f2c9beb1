"""Whether a file can make its inputs of pictures: what is known of the folder's image processor, compared with it.

The processor is given pictures of many sizes. If what a file would compute differs from its results by more than one
step of 255 anywhere, the file makes no inputs of pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from exporter.preprocessing.image_settings import ImageSettings, UnknownSettingError, read_image_settings
from exporter.preprocessing.preprocessor import GIVEN, PreprocessingPlan, Preprocessor
from exporter.preprocessing.resampling import BICUBIC, resize_window
from runtime.format.golden import Case

# Height and width: one pixel, lines, smaller and larger than any model takes, both ways up, odd and even.
SAMPLES = (
    *((1, 1), (2, 1), (31, 17), (50, 64), (224, 224), (333, 251), (480, 640), (900, 601), (700, 1411), (2100, 1000)),
)
# A step of 255, and what float32 adds.
_STEPS = 1.001
# Of what the processor makes, written beside the draft for the process that verifies it.
_MOST_BYTES = 2**26


def plan_pictures(processor: Any, inputs: Collection[str]) -> PreprocessingPlan:
    """How a file can make inputs of pictures, or why it cannot.

    Args:
        processor: the folder's, of transformers; None if there is none.
        inputs: the names of the file's inputs.
    """
    if processor is None or "pixel_values" not in inputs:
        return PreprocessingPlan()
    name = type(processor).__name__
    try:
        family = name.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor")
        settings = read_image_settings(family, processor.to_dict())
        made = {f"picture-{h}x{w}": (picture, _made(processor, picture, inputs)) for h, w, picture in _pictures()}
        chosen = _compared(processor, settings, made)
    except UnknownSettingError as error:
        reason = str(error)
    # Of the folder's own processor, or one with odd settings.
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        reason = f"its settings cannot be read: {error}"
    else:
        note = f"pictures are preprocessed in the file, as {name} does at {len(made)} sizes"
        return PreprocessingPlan(chosen, (note,), _stored(made), settings.step * _STEPS)
    return PreprocessingPlan(None, (f"pictures are not preprocessed in the file: {name}: {reason}",))


def _stored(made: Mapping[str, tuple[torch.Tensor, Mapping[str, torch.Tensor]]]) -> tuple[Case, ...]:
    """What the written file is compared with: all pictures, unless that is much."""
    cases: list[Case] = []
    left = _MOST_BYTES
    for name, (given, outputs) in made.items():
        left -= sum(tensor.numel() * tensor.element_size() for tensor in outputs.values())
        if outputs and left >= 0:
            cases.append(Case(name, {GIVEN: given}, outputs))
    return tuple(cases)


def _compared(
    processor: Any, settings: ImageSettings, made: Mapping[str, tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
) -> Preprocessor:
    """What the settings say, if its results are those of the processor.

    Raises:
        UnknownSettingError: at some size they are not.
    """
    known = [outputs for _, outputs in made.values() if outputs]
    if not known:
        raise UnknownSettingError("it fails on every picture")
    torchvision = getattr(processor, "backend", "") == "torchvision" or type(processor).__name__.endswith("Fast")
    adaptive = not torchvision and _pillow_is_adaptive()
    found = settings.preprocessor("pixel_mask" in known[0], adaptive, upper_left=torchvision)
    for name, (given, outputs) in made.items():
        if not _is_close(found, given, outputs, settings.step * _STEPS):
            raise UnknownSettingError(f"what is known of it gives other pixels for {name}")
    return found


def _pillow_is_adaptive() -> bool:
    """Whether Pillow resizes along the height first where that leaves fewer pixels, as it does from release 13 on."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (64, 24, 3), generator=generator, dtype=torch.uint8)
    resized = Image.fromarray(picture.numpy()).resize((20, 16), resample=BICUBIC)
    pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).reshape(16, 20, 3).int()
    along_height, along_width = (
        int((resize_window(picture, 16, 20, [0, 0, 16, 20], BICUBIC, adaptive).int() - pixels).abs().sum())
        for adaptive in (True, False)
    )
    return along_height < along_width


def _is_close(found: Preprocessor, given: torch.Tensor, outputs: Mapping[str, torch.Tensor], most: float) -> bool:
    """Whether the results differ by no more than `most`; both may fail."""
    try:
        made = found(given)
    except ValueError:
        return not outputs
    if made.keys() != outputs.keys() or any(made[name].shape != outputs[name].shape for name in made):
        return False
    return all(float((made[name].double() - outputs[name].double()).abs().max()) <= most for name in made)


def _pictures() -> Iterator[tuple[int, int, torch.Tensor]]:
    """Noise, which shows every difference, over slopes, which show a wrong place."""
    for height, width in SAMPLES:
        generator = torch.Generator().manual_seed(height * 10_000 + width)
        noise = torch.randint(0, 128, (height, width, 3), generator=generator, dtype=torch.uint8)
        slope = (torch.arange(height).unsqueeze(1) * 7 + torch.arange(width) * 3).remainder(128).to(torch.uint8)
        yield height, width, noise + slope.unsqueeze(2)


def _made(processor: Any, picture: torch.Tensor, inputs: Collection[str]) -> dict[str, torch.Tensor]:
    """What the processor makes of a picture, of the file's inputs; empty if it fails.

    Raises:
        UnknownSettingError: the results are no tensors of one row.
    """
    from PIL import Image

    try:
        made = processor(Image.fromarray(picture.numpy()), return_tensors="pt")
    # Everything: what a processor raises on a picture of one pixel is no interface.
    except Exception:  # noqa: BLE001
        return {}
    found = {name: value for name, value in made.items() if name in inputs}
    if "pixel_values" not in found or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UnknownSettingError("it makes no tensor pixel_values")
    if found["pixel_values"].dim() != 4 or any(len(value) != 1 for value in found.values()):
        raise UnknownSettingError(f"its pixel_values are {list(found['pixel_values'].shape)}")
    found["pixel_values"] = found["pixel_values"].float()
    if found.keys() - {"pixel_values", "pixel_mask"}:
        raise UnknownSettingError(f"it makes {', '.join(sorted(found))}")
    return dict(sorted(found.items(), key=lambda item: item[0] != "pixel_values"))
