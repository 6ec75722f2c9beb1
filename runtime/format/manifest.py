"""THE FORMAT: what an artifact carries beside its code, and the only place that specifies it.

The dataclasses below are the fields of `manifest.json`; `runtime.format.codec` reads and writes them. Needs neither
torch nor any other package.

An artifact is a TorchScript archive (a zip, its records stored at `<archive>/…`) that plain
`torch.jit.load` and `torch::jit::load` read. Its `forward` takes the tensors of `Manifest.inputs` in that
order and MUST return a tuple of the tensors of `Manifest.outputs` in that order. Where it has a method
`prepare`, without arguments, a reader SHOULD call it once after loading, before other threads use the module: it
brings the weights into the processor's own order. The answers are the same without it. Beside the code it
carries extra files at `<archive>/extra/<name>`:

- `format_version` MUST hold `FORMAT_VERSION` as decimal text, so that a C++ program refuses a newer file
  without reading JSON. A reader MUST refuse a number above its own, and one below the oldest that it reads.
- `manifest.json` MUST hold `Manifest` as UTF-8 JSON. A reader MUST ignore fields it does not know: a
  later writer of the same version may add some; whatever changes the meaning of an old field raises the
  version.
  `Manifest.parts` MUST list every other record of the archive, in the archive's order; a reader that checks
  them MUST refuse a record that differs, lacks, or is not listed. `manifest.json` is the only record not listed.
- `golden.safetensors` MUST hold the verified cases: tensors named `<case>/input/<name>` and
  `<case>/output/<name>`, where the outputs are those of the original model in eager fp32; where
  `Manifest.padded_output` is `repeated`, their padded places hold what it says. A large output MAY be
  a sample instead, `<case>/every-<N>/<name>`: of the flattened output the numbers at 0, N, 2N, … Any
  consumer can so check itself on its own machine.
- `signature` MAY hold an Ed25519 signature (64 bytes) of the bytes of `manifest.json`, which lists the digests of all
  other parts; it is the archive's last record.
- `tokenizer.json` MAY hold the model's tokenizer as the `tokenizers` package writes it; it is there
  exactly when `Manifest.text` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.format.measured import Accuracy as Accuracy
from runtime.format.measured import Timing as Timing
from runtime.format.measured import VerifiedCase as VerifiedCase

# The version that is written, and the oldest that is read. Version 1 was never released.
FORMAT_VERSION = 2
OLDEST_FORMAT_VERSION = 2

# Names of the extra files (see the module's docstring).
FORMAT_VERSION_FILE = "format_version"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.safetensors"
TOKENIZER_FILE = "tokenizer.json"
SIGNATURE_FILE = "signature"

Verification = Literal["full", "quick", "off"]
# int8: linears and convolutions by calibrated 8-bit products, the rest in bf16 or fp32.
Precision = Literal["fp32", "bf16", "int8"]
Backend = Literal["ipex", "onednn", "plain"]
DType = Literal["int64", "float32"]
# How a head's logits become scores: one class of several, several at once, or numbers as they are; or a cross encoder's
# own choice.
Activation = Literal["softmax", "sigmoid", "tanh", "none"]


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor. Axes of the same name have the same size in one call.

    `maximum` is None where the model knows no limit; it equals `minimum` where the size is fixed. Every size is a
    multiple of `multiple`.
    """

    name: str
    minimum: int
    maximum: int | None
    multiple: int = 1


@dataclass(frozen=True)
class ValueRange:
    """The integers that an input may hold, both ends included."""

    minimum: int
    maximum: int


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    `values` bounds integer inputs (token ids). `fill` is the constant that stands in for the whole tensor
    when the caller leaves the input out; None means that the input is required. `required_token_id` is an id that every
    row must hold, each equally often: models of the BART kind read their answer where their end token stands.
    """

    name: str
    dtype: DType
    axes: tuple[Axis, ...]
    values: ValueRange | None = None
    fill: int | None = None
    required_token_id: int | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Where the weights came from. `weights_sha256` runs over the state dict's tensors, by name.

    `ignored_settings` are those of the model folder that the export was told to leave out, each with its place.
    """

    id: str
    revision: str | None
    type: str
    architecture: str
    parameters: int
    weights_sha256: str
    random_weights: bool
    ignored_settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """What the consumer must have.

    `torch` is the release that wrote the file. `torch_rule` says which releases read it: `same-minor`
    (an operator library compiled against that minor release) or `at-least-minor` (TorchScript reads
    older archives, not newer ones). `ipex` is the exact release, or None. `cpu_flags` are names from
    `/proc/cpuinfo`.
    """

    torch: str
    torch_rule: Literal["same-minor", "at-least-minor"]
    ipex: str | None
    cpu_flags: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """A fused operator in the executed graph: what it joins, its name, how often it stands there."""

    kind: str
    operator: str
    count: int


@dataclass(frozen=True)
class Tolerance:
    """Bounds on an output's error against eager fp32, both relative (see `runtime.verification.compare`)."""

    max_error: float
    rms_error: float


@dataclass(frozen=True)
class Execution:
    """How to run it: shapes to call `warmup_calls` times each after loading, before real traffic.

    Where `optimized_execution` is false, a reader SHOULD call with TorchScript's optimisation switched off: the graph
    gains nothing by it, and the first calls wait for it. The answers are the same.
    """

    warmup_shapes: tuple[dict[str, int], ...]
    warmup_calls: int
    optimized_execution: bool = True


@dataclass(frozen=True)
class TextRules:
    """What answers in words need beyond `tokenizer.json`; ids are None where there is no such token.

    Without `token_types` the input `token_type_ids` MUST be left out. `prompt` stands before each text to embed.
    """

    unknown_id: int | None
    class_id: int | None
    mask_id: int | None
    mask_token: str | None
    truncation_side: Literal["left", "right"]
    token_types: bool
    clean_up_spaces: bool
    prompt: str


@dataclass(frozen=True)
class TextInfo:
    """How to turn text into inputs with `tokenizer.json`. `max_length` is in tokens."""

    max_length: int
    pad_id: int
    pad_token: str
    pad_type_id: int
    padding_side: Literal["left", "right"]
    rules: TextRules | None = None  # None in files of older writers


@dataclass(frozen=True)
class PartDigest:
    """One record of the archive: its name without the top folder, its size, its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a consumer knows about an artifact without running it."""

    format_version: int
    exporter_version: str
    task: str
    precision: Precision
    backend: Backend
    model: ModelInfo
    requires: Requirements
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    activation: Activation
    fusions: tuple[Fusion, ...]
    tolerance: Tolerance
    verification: Verification
    verified: tuple[VerifiedCase, ...]
    execution: Execution
    text: TextInfo | None
    parts: tuple[PartDigest, ...]
    # Empty where nothing was timed, as in files of older writers.
    timings: tuple[Timing, ...] = ()
    # Empty but for int8.
    accuracy: tuple[Accuracy, ...] = ()
    # What outputs along the sequence hold at places of padding: what the model computes there, or, where no work is
    # done on padding, the row's last real token's values again.
    padded_output: Literal["computed", "repeated"] = "computed"

    @property
    def sequence(self) -> Axis | None:
        """The inputs' axis of tokens, if they have one."""
        return next((axis for spec in self.inputs for axis in spec.axes if axis.name == "sequence"), None)


def longest_text(text: TextInfo, sequence: Axis | None) -> int:
    """Tokens of the longest text that can be answered: the smaller of what the tokenizer and the inputs admit."""
    if sequence is None or sequence.maximum is None:
        return text.max_length
    return min(text.max_length, sequence.maximum // sequence.multiple * sequence.multiple)
