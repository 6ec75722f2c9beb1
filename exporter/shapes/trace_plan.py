"""The plan of an export: the inputs, their order and sizes, and why they were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.config.forward_parameters import FRAMES_PER_SECOND, SAMPLING_RATE, TRIES, USUAL_SECONDS
from exporter.config.request import MIN_EXAMPLE_SIZE, ExportRequest
from exporter.config.tasks import Task
from exporter.loading.loader import Source
from exporter.shapes import memory
from exporter.shapes.image_sizes import choose_image_sizes
from exporter.shapes.input_specs import derive
from exporter.shapes.test_shapes import Dimension
from runtime.errors import RequestError, TaskError
from runtime.format.manifest import TensorSpec


@dataclass(frozen=True)
class TracePlan:
    """Everything that the later stages need to make inputs and to describe the artifact.

    `inputs` are in the order of the model's forward parameters; `dimensions` are their axes by name, `batch` first.
    Along `padded_axis` a mask allows shorter rows; None if there is none. `pad_id` fills padded positions,
    `padding_side` is the side on which they are, `avoided_ids` are special tokens that examples leave out. `end_id` is
    the id at the end of each row of an example, where CLIP reads its vector. `choices` say what was decided and why.
    `images` are heights and widths to verify, if there are any images; `grids` those of images in patches.
    """

    task: Task
    inputs: tuple[TensorSpec, ...]
    dimensions: Mapping[str, Dimension]
    padded_axis: str | None
    pad_id: int
    avoided_ids: frozenset[int]
    padding_side: str
    choices: tuple[str, ...]
    images: tuple[tuple[int, int], ...] = ()
    end_id: int | None = None
    grids: tuple[tuple[int, int], ...] = ()

    @property
    def example(self) -> dict[str, int]:
        """The traced example's size along every axis."""
        return {name: dimension.example for name, dimension in self.dimensions.items()}

    @property
    def example_sizes(self) -> str:
        """The traced example's sizes along the axes that vary, for instance `2x128`."""
        return "x".join(
            str(dimension.example)
            for name, dimension in self.dimensions.items()
            if name == "batch" or not dimension.fixed
        )


def make_plan(source: Source, request: ExportRequest, every: bool = False) -> TracePlan:
    """Make the plan; with `every`, with all inputs that are known instead of the main ones.

    Raises:
        RequestError: `sequence_length` is longer than the model admits, the model takes no sequences, or no images
            although sizes of images were given.
        TaskError: no input of the model is known.
    """
    asked = {"batch": request.batch_size}
    if request.sequence_length is not None:
        asked["sequence"] = request.sequence_length
    images = choose_image_sizes(source, request)
    derived = derive(source, asked, images, every, _limits(source, request))
    if (request.image_sizes or request.max_image_size is not None) and "height" not in derived.dimensions:
        raise RequestError("sizes of images are given", "none: the model takes no images")
    sequence = derived.dimensions.get("sequence")
    if request.sequence_length is not None:
        _check_length(request.sequence_length, sequence)
    _check_limits(request, derived.dimensions)
    if sequence is not None and sequence.axis.maximum is not None and sequence.axis.maximum < MIN_EXAMPLE_SIZE:
        raise TaskError(f"the model admits sequences of {sequence.axis.maximum}", f"at least {MIN_EXAMPLE_SIZE}")
    choices = [f"task {source.task.name}: {source.task_reason}"]
    kept = ", ".join(spec.name for spec in derived.inputs)
    choices.append(f"inputs {kept}: those known of its forward, whose other parameters keep their defaults")
    choices += [f"input {name} dropped: {reason}" for name, reason in derived.dropped.items()]
    choices += [_range(source, dimension) for name, dimension in derived.dimensions.items() if name != "batch"]
    choices += memory.check(source, derived.dimensions)
    text = source.tokenizer.info
    pad_id = text.pad_id if text else (getattr(source.config, "pad_token_id", None) or 0)
    required_token_id = next(
        (spec.required_token_id for spec in derived.inputs if spec.required_token_id is not None), None
    )
    return TracePlan(
        task=source.task,
        inputs=derived.inputs,
        # First, so that shapes are shown batch first.
        dimensions={"batch": derived.dimensions["batch"]} | dict(derived.dimensions),
        padded_axis=derived.padded_axis,
        pad_id=pad_id,
        avoided_ids=frozenset(
            (pad_id, *source.tokenizer.special_ids, *([] if required_token_id is None else [required_token_id]))
        ),
        padding_side=text.padding_side if text else "right",
        choices=tuple(choices),
        images=images.verified if "height" in derived.dimensions else (),
        end_id=_end_id(source),
        grids=source.patch_grids,
    )


def _end_id(source: Source) -> int | None:
    """The id that ends a text, for models that compare texts with something else: some read their vector there."""
    end = getattr(source.config.get_text_config(), "eos_token_id", None)
    known = (source.compares or source.task.tower) and type(end) is int and 0 <= end < source.vocabulary
    return end if known else None


def _limits(source: Source, request: ExportRequest) -> dict[str, int]:
    """The largest sizes that the user asks for, by axis."""
    limits = {} if request.max_length is None else {"sequence": request.max_length}
    extractor = None if source.sounds is None else source.sounds.extractor
    if request.max_audio_seconds is not None:
        rate = source.preprocessor.get("sampling_rate")
        limits["samples"] = int(request.max_audio_seconds * (rate if isinstance(rate, int) else SAMPLING_RATE))
        limits["frames"] = int(request.max_audio_seconds * FRAMES_PER_SECOND)
    if extractor is not None:
        # Extractors count differently: with a frame more at the end, or two frames as one.
        frames = extractor.frames(request.max_audio_seconds or USUAL_SECONDS)
        limits |= {} if frames is None else {"frames": max(frames, TRIES["frames"].least)}
    return limits


def _check_limits(request: ExportRequest, dimensions: Mapping[str, Dimension]) -> None:
    """Refuse a limit that the model does not admit, or for an axis that it does not have."""
    most = request.max_length
    if most is not None:
        axis = dimensions["sequence"].axis if "sequence" in dimensions else None
        if axis is None or axis.maximum is None or axis.maximum < most - most % axis.multiple:
            admitted = "no length: the model takes no texts" if axis is None else f"at most {axis.maximum}"
            raise RequestError(f"max_length is {most}", f"{admitted}, the longest that the model admits")
    if request.max_audio_seconds is not None and not any(
        name in dimensions and not dimensions[name].fixed for name in ("samples", "frames")
    ):
        raise RequestError(
            f"max_audio_seconds is {request.max_audio_seconds}", "none: the model takes no sound of variable length"
        )


def _check_length(asked: int, sequence: Dimension | None) -> None:
    if sequence is None:
        raise RequestError(f"sequence_length is {asked}", "no length: the model takes no sequences of tokens")
    most = sequence.axis.maximum
    if most is not None and asked > most:
        raise RequestError(f"sequence_length is {asked}", f"at most {most}, the longest this model and exporter admit")
    if asked % sequence.axis.multiple:
        raise RequestError(f"sequence_length is {asked}", f"a multiple of {sequence.axis.multiple}")


def _range(source: Source, dimension: Dimension) -> str:
    """The range of one axis, and why it is not wider."""
    axis = dimension.axis
    if dimension.fixed:
        return f"{axis.name} {axis.minimum}: the only size that the model admits"
    if axis.name != "sequence":
        most = "" if axis.maximum is None else f" to {axis.maximum}"
        return f"{axis.name} from {axis.minimum}{most}: others are not verified"
    if source.longest_sequence is not None and source.longest_sequence == axis.maximum:
        return f"sequences up to {axis.maximum}: the longest that the model admits"
    limit = source.longest_sequence or "no limit"
    texts = source.tokenizer.info
    longer = texts is not None and axis.maximum is not None and texts.max_length > axis.maximum
    remedy = f"; its texts may have {texts.max_length}: give --max-length for longer ones" if texts and longer else ""
    return f"sequences up to {axis.maximum} of the model's {limit}: longer ones are not verified{remedy}"
