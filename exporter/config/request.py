"""ExportRequest: what the user asks for, validated.

Values that are not allowed, and combinations that contradict each other, are refused. The allowed values are defined
here once, for the flags and for the library.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from exporter.config.forward_parameters import TRIES
from exporter.config.tasks import TASKS
from runtime.artifact.operator_lists import check_names
from runtime.errors import OperatorNameError, RequestError
from runtime.format.manifest import Precision, Verification

BackendChoice = Literal["auto", "stock", "ipex", "onednn", "native", "plain"]
ExampleForm = Literal["auto", "dict", "tuple"]
Tune = Literal["off", "short", "full"]
Padding = Literal["drop", "keep"]

TASK_CHOICES: tuple[str, ...] = ("auto", *TASKS)
BACKEND_CHOICES: tuple[str, ...] = get_args(BackendChoice)
FORM_CHOICES: tuple[str, ...] = get_args(ExampleForm)
PRECISION_CHOICES: tuple[str, ...] = get_args(Precision)
VERIFY_CHOICES: tuple[str, ...] = get_args(Verification)
TUNE_CHOICES: tuple[str, ...] = get_args(Tune)
PADDING_CHOICES: tuple[str, ...] = get_args(Padding)

# Inputs of a linear that share a scale in int4.
INT4_GROUPS = (32, 128)
# The task whose weights alone are rounded, and which a configuration may stand for.
_GENERATING = ("auto", "text-generation")
# With a size of 1 in the example, a trace or IPEX's fusion may keep broadcasting decisions that fail at other sizes;
# see docs/decisions/export.md.
MIN_EXAMPLE_SIZE = 2
# More than any published model admits, and an hour of sound.
MAX_LENGTH, MAX_SECONDS = 2**20, 3600
# Larger images are a slip of the pen: one of this size takes 12 GB.
MAX_IMAGE_SIDE = 2**15
# torch.manual_seed takes a signed 64-bit integer.
MAX_SEED = 2**63 - 1


def no_calibration() -> RequestError:
    """The error for int8 without samples where they are needed."""
    return RequestError(
        "precision is int8 and no calibration is given",
        "samples like those that the model will process, to fit its ranges to",
        "give --calibration FILE: .txt with one text per line, .jsonl with inputs per line, or .safetensors; "
        "--backend native needs none",
    )


@dataclass(frozen=True)
class ExportRequest:
    """One export.

    Args:
        model: a local folder, a hub id, or a short name of `exporter.config.model_aliases`.
        output: the file to write.
        task: a name of `exporter.config.tasks.TASKS`, or `auto`: what the configuration says.
        precision: `fp32`, `bf16`, `int8`, or for text-generation `int4`, where int8 and int4 are those of the weights.
        int4_group: how many inputs of a linear share a scale in int4, 32 or 128.
        calibration: a file of samples, for int8 only; `exporter.calibration.dataset` describes its forms. The backend
            `native` needs none, and measures the accuracy with it; neither does text-generation.
        backend: `ipex`, `onednn`, `native`, `plain`; `auto`: the fastest of those that can be used here (see `tune`);
            `stock`: the fastest of those whose files need torch alone.
        example_inputs: `dict`, `tuple`, or `auto`: dict from torch 2.0 on, else tuple.
        verify: how thoroughly the written file is verified, `quick` or `full`; with `off` it is not, and the file says
            so.
        tune: time the candidates against each other and take the fastest that is correct: `short` compares the backends
            if `backend` is `auto` or `stock`; `full` takes longer, and compares the forms of attention too; `off` takes
            the first candidate that is correct, IPEX before the others.
        tune_shapes: the shapes to time, each with its sizes in the order of the inputs' axes, batch first.
        padding: `drop` skips padding if the backend can (onednn) and rows are padded on the right; `keep` computes it.
        batch_size: of the example that is traced, 2 or more.
        sequence_length: of the example that is traced, 2 or more; None chooses it.
        max_length: the longest sequence to verify and declare, in tokens; None: 2,048 or what the model admits.
        max_audio_seconds: the longest sound to verify and declare; None: 30 s or what the model admits.
        image_sizes: heights and widths of images to verify, that of the traced example first; empty takes those that
            the folder's image processor makes.
        max_image_size: the largest height and width to support, verified too; None takes what was verified otherwise.
        revision: branch, tag or commit on the hub.
        cache_dir: where models from the hub are kept.
        local_files_only: do not ask the hub; use its cache.
        trust_remote_code: run Python code that the model brings along, with your rights.
        random_weights: seeded random weights instead of trained ones.
        seed: of the random weights.
        allow_pickle: accept pickled weights; unpickling runs whatever code the file holds.
        allow_new_head: accept weights that the checkpoint lacks; they are random.
        ignore_settings: keys of a sentence-transformers folder to leave out, as if it did not have them.
        base_model: the model that a PEFT adapter was trained for, in place of the one that the adapter names.
        gguf: a GGUF file in the model's folder to take configuration, weights and tokenizer from.
        sign: a file with an Ed25519 private key in PEM; the artifact carries its owner's signature.
        cpp_header: a file for the artifact's typed contract, for programs in C++ (`exporter.packaging.cpp_header`).
        evaluate: a file of labelled examples, for text-generation of lines of text; the report has the metrics of the
            model and of the artifact on it.
        max_metric_drop: by how many points of 100 the artifact's metric may be lower; if by more, nothing is written.
        max_perplexity_rise: by how many per cent the artifact's perplexity may be higher; if by more, nothing is
            written.
        allow_operators: names such as `aten::segment_reduce`: operators that the file may call though they are not on
            the list (docs/operators.md). Whoever loads the file must allow them too.
        force: replace an existing output.

    Raises:
        RequestError: a value that is not allowed.
    """

    model: str
    output: str | os.PathLike[str]
    task: str = "auto"
    precision: Precision = "fp32"
    int4_group: int = INT4_GROUPS[0]
    calibration: str | os.PathLike[str] | None = None
    backend: BackendChoice = "auto"
    example_inputs: ExampleForm = "auto"
    verify: Verification = "quick"
    tune: Tune = "short"
    tune_shapes: tuple[tuple[int, ...], ...] = ()
    padding: Padding = "drop"
    batch_size: int = 2
    sequence_length: int | None = None
    max_length: int | None = None
    max_audio_seconds: float | None = None
    image_sizes: tuple[tuple[int, int], ...] = ()
    max_image_size: int | None = None
    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    random_weights: bool = False
    seed: int = 0
    allow_pickle: bool = False
    allow_new_head: bool = False
    ignore_settings: tuple[str, ...] = ()
    base_model: str | None = None
    gguf: str | None = None
    sign: str | os.PathLike[str] | None = None
    cpp_header: str | os.PathLike[str] | None = None
    evaluate: str | os.PathLike[str] | None = None
    max_metric_drop: float | None = None
    max_perplexity_rise: float | None = None
    allow_operators: tuple[str, ...] = ()
    force: bool = False

    @property
    def long(self) -> bool:
        """Whether sequences are longer than what is verified by default."""
        usual = TRIES["sequence"].longest
        return self.max_length is not None and usual is not None and self.max_length > usual

    def __post_init__(self) -> None:
        self._check_types()
        self._check_choices()
        self._check_numbers()
        self._check_paths()
        self._check_combinations()
        try:
            check_names(self.allow_operators)
        except OperatorNameError as error:
            raise RequestError(error.found, error.expected) from error

    def _check_types(self) -> None:
        paths = (("model", self.model), ("output", self.output), ("calibration", self.calibration))
        for name, path in paths:
            if not isinstance(path, (str, os.PathLike)) and not (name == "calibration" and path is None):
                raise RequestError(f"{name} is {path!r}", "a string or a path")
        if not isinstance(self.ignore_settings, tuple) or not all(isinstance(key, str) for key in self.ignore_settings):
            raise RequestError(f"ignore_settings is {self.ignore_settings!r}", "a tuple of keys")

    def _check_choices(self) -> None:
        for name, value, choices in (
            ("task", self.task, TASK_CHOICES),
            ("precision", self.precision, PRECISION_CHOICES),
            ("backend", self.backend, BACKEND_CHOICES),
            ("example_inputs", self.example_inputs, FORM_CHOICES),
            ("verify", self.verify, VERIFY_CHOICES),
            ("tune", self.tune, TUNE_CHOICES),
            ("padding", self.padding, PADDING_CHOICES),
        ):
            if value not in choices:
                raise RequestError(f"{name} is {value!r}", f"one of {', '.join(choices)}")

    def _check_numbers(self) -> None:
        for name, size in (("batch_size", self.batch_size), ("sequence_length", self.sequence_length)):
            if size is not None and (not isinstance(size, int) or size < MIN_EXAMPLE_SIZE):
                raise RequestError(
                    f"{name} is {size}",
                    f"{MIN_EXAMPLE_SIZE} or more: a trace made with a size of 1 may be wrong at other sizes",
                )
        most = self.max_length
        if most is not None and (not isinstance(most, int) or not MIN_EXAMPLE_SIZE <= most <= MAX_LENGTH):
            raise RequestError(f"max_length is {most!r}", f"a number of tokens from {MIN_EXAMPLE_SIZE} to {MAX_LENGTH}")
        seconds = self.max_audio_seconds
        if seconds is not None and not (isinstance(seconds, (int, float)) and 1 <= seconds <= MAX_SECONDS):
            raise RequestError(f"max_audio_seconds is {seconds!r}", f"seconds from 1 to {MAX_SECONDS}")
        for name, side in (("max_image_size", self.max_image_size), *(("image_sizes", s) for s in self._sides())):
            if side is not None and (not isinstance(side, int) or not MIN_EXAMPLE_SIZE <= side <= MAX_IMAGE_SIDE):
                raise RequestError(f"{name} holds {side!r}", f"pixels from {MIN_EXAMPLE_SIZE} to {MAX_IMAGE_SIDE}")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise RequestError(f"seed is {self.seed!r}", f"a whole number from 0 to {MAX_SEED}")
        if self.max_metric_drop is not None and not self.max_metric_drop >= 0:
            raise RequestError(f"max_metric_drop is {self.max_metric_drop}", "points of 100, 0 or more")
        if self.max_perplexity_rise is not None and not self.max_perplexity_rise >= 0:
            raise RequestError(f"max_perplexity_rise is {self.max_perplexity_rise}", "per cent, 0 or more")

    def _check_rounding(self) -> None:
        if self.int4_group not in INT4_GROUPS:
            raise RequestError(f"int4_group is {self.int4_group!r}", " or ".join(map(str, INT4_GROUPS)))
        if self.int4_group != INT4_GROUPS[0] and self.precision != "int4":
            raise RequestError(f"int4_group is given and precision is {self.precision}", "int4_group only with int4")
        if self.precision == "int4" and self.task not in _GENERATING:
            raise RequestError(f"precision is int4 and task is {self.task}", "int4 only for text-generation")
        # Text-generation needs no samples. What the configuration says is known later, and `auto` may be `native`.
        without = self.task == "text-generation" or (self.task == "auto" and self.backend == "auto")
        if self.precision == "int8" and self.calibration is None and self.backend != "native" and not without:
            raise no_calibration()

    def _sides(self) -> list[int]:
        """The heights and widths of `image_sizes`."""
        if not isinstance(self.image_sizes, tuple) or any(
            not isinstance(size, tuple) or len(size) != 2 for size in self.image_sizes
        ):
            raise RequestError(f"image_sizes is {self.image_sizes!r}", "pairs of height and width such as 224x224")
        return [side for size in self.image_sizes for side in size]

    def _check_paths(self) -> None:
        if not self.model:
            raise RequestError("model is empty", "a folder, a hub id or a short name")
        if not Path(self.output).name or Path(self.output).name == "..":
            raise RequestError(f"output is {os.fspath(self.output)!r}", "the name of a file")
        if self.cpp_header is not None and os.path.realpath(self.cpp_header) == os.path.realpath(self.output):
            raise RequestError(f"output and cpp_header are both {os.fspath(self.output)!r}", "two files")

    def _check_combinations(self) -> None:
        if self.tune == "off" and self.tune_shapes:
            raise RequestError("tune_shapes is given and tune is off", "tune_shapes only with tune short or full")
        if self.max_metric_drop is not None and self.evaluate is None:
            raise RequestError("max_metric_drop is given and evaluate is not", "evaluate with max_metric_drop")
        if self.max_perplexity_rise is not None and self.evaluate is None:
            raise RequestError("max_perplexity_rise is given and evaluate is not", "evaluate with max_perplexity_rise")
        if self.evaluate is not None and self.verify == "off":
            raise RequestError("evaluate is given and verify is off", "one of them")
        self._check_rounding()
        if self.precision != "int8" and self.calibration is not None:
            raise RequestError(f"calibration is given and precision is {self.precision}", "calibration only with int8")
        for name, value in (("base_model", self.base_model), ("gguf", self.gguf)):
            if self.random_weights and value is not None:
                raise RequestError(f"random_weights and {name} are both set", "one of them")
        if self.random_weights and self.allow_pickle:
            raise RequestError(
                "random_weights and allow_pickle are both set", "one of them: random weights come from no file"
            )
