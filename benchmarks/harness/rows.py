"""What is compared, as pure data: models, shapes, precisions, contenders.

Needs no package, so that workers of every environment can import it. Patterns that match nothing are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")

# ours: artifacts of this project. peer: other ways to make a model fast. eager: the model as it is. floor: no way to
# run a model at all, but the time that its matrix products take alone.
Kind = Literal["ours", "peer", "eager", "floor"]


@dataclass(frozen=True)
class Model:
    """One model: the exporter's task, the output compared, the shapes of its inputs.

    `cases` is the number of different inputs of a row, each answered and compared; calls that are timed take them in
    turn.
    """

    name: str
    task: str
    output: str
    shapes: tuple[str, ...]
    cases: int
    about: str


_TEXT = ("1x32", "1x128", "8x128", "1x384")
MODELS = {
    model.name: model
    for model in (
        Model("bert-base", "text-classification", "logits", _TEXT, 4, "BERT, 12 layers of 768, seeded random weights"),
        # More cases: its trained weights are what int8's cosines are judged by.
        Model("minilm", "sentence-embedding", "sentence_embedding", _TEXT, 32, "all-MiniLM-L6-v2, trained weights"),
        Model("vit-base", "image-classification", "logits", ("1", "8"), 4, "ViT, 224x224, seeded random weights"),
    )
}


@dataclass(frozen=True)
class Row:
    """One model at one shape in one precision. A shape is `batch` (images) or `batch x length` in tokens."""

    model: str
    shape: str
    precision: Precision

    @property
    def name(self) -> str:
        """As the user writes it: `bert-base/8x128`."""
        return f"{self.model}/{self.shape}"

    @property
    def file(self) -> str:
        """A name for files of this row."""
        return f"{self.model}_{self.shape}_{self.precision}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch, and length where the input is text."""
        return tuple(int(size) for size in self.shape.split("x"))


ROWS = tuple(
    Row(model.name, shape, precision) for precision in PRECISIONS for model in MODELS.values() for shape in model.shapes
)


@dataclass(frozen=True)
class Contender:
    """One way to run a model. `module` in `benchmarks.harness.contenders` loads it, in the environment `home`."""

    name: str
    kind: Kind
    module: str
    precisions: tuple[Precision, ...]
    about: str
    home: Literal["main", "peers", "zen"] = "main"
    # What is imported before anything else: start and memory are counted from there.
    framework: str = "torch"
    # Timed unless others are named; the rest is left to `--full`.
    decides: bool = False


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(
            "native",
            "ours",
            "exported",
            PRECISIONS,
            "export-model --backend native: operators of its own; int8 without calibration",
            decides=True,
        ),
        Contender(
            "tuned",
            "ours",
            "exported",
            PRECISIONS,
            "export-model --tune full, for the shapes of the benchmark: the fastest of its own forms",
        ),
        Contender("onednn", "ours", "exported", PRECISIONS, "export-model --backend onednn"),
        Contender("ipex", "ours", "exported", PRECISIONS, "export-model --backend ipex"),
        Contender("plain", "ours", "exported", ("fp32", "bf16"), "export-model --backend plain: stock TorchScript"),
        Contender(
            "eager",
            "eager",
            "eager",
            PRECISIONS,
            "transformers; the faster of sdpa and written-out attention; bf16 weights; "
            "int8: torch.ao dynamic quantisation of the linears",
            decides=True,
        ),
        Contender(
            "compile",
            "peer",
            "compiled",
            PRECISIONS,
            "torch.compile with freezing, compiled for the row's shape; int8: pt2e with X86InductorQuantizer",
        ),
        Contender("aot", "peer", "aot", ("fp32", "bf16"), "AOTInductor with freezing, compiled for the row's shape"),
        Contender(
            "onnxruntime",
            "peer",
            "onnx",
            ("fp32", "int8"),
            "ONNX Runtime, graph optimised by its transformers optimiser (which fuses BERT's attention, and finds none "
            "that it knows in ViT, however exported); int8: dynamic, per channel",
            "peers",
            "onnxruntime",
            decides=True,
        ),
        Contender(
            "openvino",
            "peer",
            "openvino",
            PRECISIONS,
            "OpenVINO; the fastest of dynamic and static shape, of its converter and ONNX, and for batches of its "
            "throughput hint with a stream a thread, which share the batch; int8: nncf post-training, model type "
            "transformer",
            "peers",
            "openvino",
            decides=True,
        ),
        Contender(
            "zentorch",
            "peer",
            "zentorch",
            ("fp32", "bf16"),
            "torch.compile with AMD's backend zentorch, in an environment of its own (.venv-zen)",
            "zen",
        ),
        Contender(
            "floor", "floor", "floor", PRECISIONS, "the model's matrix products alone, weights packed", decides=True
        ),
    )
}


@dataclass(frozen=True)
class Settings:
    """How long a row is timed: `rounds`, and in each `seconds` a contender, `least` calls or more.

    The tuned artifact is tuned for all shapes of its `model`, or anew for each `row`.
    """

    rounds: int
    seconds: float
    least: int
    threads: int
    tuned_for: Literal["model", "row"] = "model"


class UnknownNameError(ValueError):
    """A pattern or name on the command line that matches nothing; the message says what there is."""


def choose_rows(patterns: Sequence[str], precisions: Sequence[str]) -> list[Row]:
    """Rows whose name (or model) matches any of the patterns, `*` allowed; all without patterns.

    Raises:
        UnknownNameError: a pattern matches no row.
    """
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in ROWS):
            names = ", ".join(dict.fromkeys(row.name for row in ROWS))
            raise UnknownNameError(f"no row {pattern!r}; there are {names}")
    return [
        row
        for row in ROWS
        if row.precision in precisions and (not patterns or any(_matches(row, pattern) for pattern in patterns))
    ]


def _matches(row: Row, pattern: str) -> bool:
    return fnmatch(row.name, pattern) or row.model == pattern


def choose_contenders(names: Sequence[str], full: bool = False) -> list[Contender]:
    """The contenders of these names, in the table's order; without names those that decide, or all if `full`.

    Raises:
        UnknownNameError: no contender has that name.
    """
    for name in names:
        if name not in CONTENDERS:
            raise UnknownNameError(f"no contender {name!r}; there are {', '.join(CONTENDERS)}")
    return [
        contender
        for contender in CONTENDERS.values()
        if (contender.name in names if names else full or contender.decides)
    ]
