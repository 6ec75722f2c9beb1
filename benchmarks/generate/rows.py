"""What is compared, as pure data: models, precisions, contenders, lengths.

Needs no package, so that workers of every environment can import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness.rows import UnknownNameError

Precision = Literal["fp32", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")

# Tokens of the prompts, new tokens behind one of them, and rows that are written together.
PROMPT, LONG_PROMPT, NEW, ROWS_TOGETHER = 128, 512, 32, 8
# How many tokens of the greedy text are compared, and how many of them, from the first on, must be those of eager fp32
# (in int8 and int4 of the middle row). With fewer bits another token may be the best one; what is the same is told.
COMPARED = 32
LEAST_EQUAL: dict[Precision, int] = {"fp32": 32, "bf16": 8, "int8": 1, "int4": 0}


@dataclass(frozen=True)
class Model:
    """One model; `wide` if its best logits lie far apart, as those of trained weights do."""

    name: str
    about: str
    wide: bool


MODELS = {
    model.name: model
    for model in (
        Model("smollm2", "SmolLM2-135M-Instruct, trained weights (dequantised from the Q4_1 of the package)", True),
        Model("qwen05", "Qwen2.5-0.5B's sizes, seeded random weights", False),
    )
}


@dataclass(frozen=True)
class Row:
    """One model in one precision."""

    model: str
    precision: Precision

    @property
    def name(self) -> str:
        """For reports: `smollm2 int8`."""
        return f"{self.model} {self.precision}"

    @property
    def file(self) -> str:
        """For files."""
        return f"{self.model}-{self.precision}"


@dataclass(frozen=True)
class Contender:
    """One way to run a model. `module` in `benchmarks.generate.contenders` loads it, in the environment `home`.

    `ours` are backends of the exporter, by their own names; a `peer` is converted by `benchmarks.generate.convert`. The
    `floor` writes nothing: it reads memory.
    """

    name: str
    kind: Literal["ours", "peer", "eager", "floor"]
    module: str
    about: str
    home: str


CONTENDERS = {
    contender.name: contender
    for contender in (
        *(
            Contender(name, "ours", "exported", f"this project's file, backend {name}", "main")
            for name in ("native", "onednn", "ipex", "plain")
        ),
        Contender("eager", "eager", "eager", "transformers' generate, sdpa attention; fp32 and bf16", "main"),
        Contender(
            "openvino",
            "peer",
            "openvino",
            "OpenVINO GenAI, its pipeline LLMPipeline; the faster of its two attention backends; converted by "
            "optimum-intel, int8 and int4 by its own weight compression",
            "genai",
        ),
        Contender(
            "onnxruntime",
            "peer",
            "onnx",
            "ONNX Runtime GenAI, converted by its own builder, int4 with accuracy level 4",
            "genai",
        ),
        Contender(
            "llamacpp",
            "peer",
            "llamacpp",
            "llama.cpp (xllamacpp), its server in the process; GGUF in F32, BF16, Q8_0, Q4_0 (embeddings Q8_0)",
            "genai",
        ),
        Contender("ctranslate2", "peer", "ctranslate2", "CTranslate2, converted by its own converter", "genai"),
        Contender("memory", "floor", "memory", "how fast a gigabyte of memory can be read, in as many threads", "main"),
    )
}


@dataclass(frozen=True)
class Settings:
    """`rounds` of all contenders in turn, `threads` of each."""

    rounds: int
    threads: int


@dataclass(frozen=True)
class Job:
    """What a worker is to run, as plain values. `path` is what it loads, `prompts` a file of `models.Prompts`.

    Of several variants only `variant`, where it is known which is the fastest.
    """

    contender: str
    module: str
    model: str
    precision: Precision
    threads: int
    path: str
    prompts: str
    variant: str | None = None


def choose_rows(models: Sequence[str], precisions: Sequence[str]) -> list[Row]:
    """The rows of these models and precisions; all without names.

    Raises:
        UnknownNameError: there is no such model or precision.
    """
    for given, known in ((models, list(MODELS)), (precisions, list(PRECISIONS))):
        for name in given:
            if name not in known:
                raise UnknownNameError(f"no {name!r}; there are {', '.join(known)}")
    return [
        Row(model, precision)
        for model in MODELS
        for precision in PRECISIONS
        if (not models or model in models) and (not precisions or precision in precisions)
    ]


def choose_contenders(names: Sequence[str]) -> list[Contender]:
    """The contenders of these names, in the table's order; all without names.

    Raises:
        UnknownNameError: no contender has that name.
    """
    for name in names:
        if name not in CONTENDERS:
            raise UnknownNameError(f"no contender {name!r}; there are {', '.join(CONTENDERS)}")
    return [contender for name, contender in CONTENDERS.items() if not names or name in names]
