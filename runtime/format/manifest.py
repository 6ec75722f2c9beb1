"""THE FORMAT: the specification of an artifact's metadata.

The dataclasses below are the fields of `manifest.json`; `runtime.format.codec` reads and writes them. This module needs
neither torch nor any other package.

An artifact is a TorchScript archive (a zip, its records stored at `<archive>/…`) that plain `torch.jit.load` and
`torch::jit::load` read. Its `forward` takes the tensors of `Manifest.inputs` in that order and MUST return a tuple of
the tensors of `Manifest.outputs` in that order. If it has a method `prepare`, without arguments, a reader SHOULD call
it once after loading, before other threads use the module: it reorders the weights for the processor. The outputs are
the same without it. If `Manifest.preprocessing` is set, it MUST have a method `preprocess` that takes one picture or
sound, a tensor as `Preprocessing` says, and returns a tuple of the inputs that `Preprocessing.inputs` names, in that
order, for one row, batch axis included. If `Manifest.generation` is set, it MUST have a method `decode`, which
`GenerationInfo` describes. Beside the code the archive has extra files at `<archive>/extra/<name>`:

- `format_version` MUST hold `FORMAT_VERSION` as decimal text, so that a C++ program refuses a newer file
  without reading JSON. A reader MUST refuse a number above its own, and one below the oldest that it reads.
- `manifest.json` MUST hold `Manifest` as UTF-8 JSON. A reader MUST ignore fields it does not know: a
  later writer of the same version may add some; whatever changes the meaning of an old field raises the
  version.
  `Manifest.parts` MUST list every other record of the archive, in the archive's order; a reader that checks
  them MUST refuse a record that differs, is missing, or is not listed. `manifest.json` is the only record not listed.
- `golden.safetensors` MUST hold the verified cases: tensors named `<case>/input/<name>` and
  `<case>/output/<name>`, where the outputs are those of the original model in eager fp32; where
  `Manifest.padded_output` is `repeated`, their padded places hold what it says. A large output MAY be
  a sample instead, `<case>/every-<N>/<name>`: of the flattened output the numbers at 0, N, 2N, … With these
  cases any consumer can check the artifact on its own machine.
  An input MAY be a recipe instead, `<case>/noise/<name>` or `<case>/ones/<name>`: int64 numbers `seed`, `block`,
  `axis`, `rank`, the `rank` sizes of the tensor, and where rows are shorter than the tensor, a length for each row.
  `ones` is an int64 tensor of ones. `noise` is a float32 tensor: number i of the flattened tensor is u(seed, i, 4),
  where u(seed, i, w) = (k / 2^20 - 0.5) * w, and k is the top 20 bits of output i (from 0) of SplitMix64 seeded with
  `seed`. If `block` is not 0, u(seed + 1, j, 8) is added to each number, j being the place of its square in the
  flattened tensor of squares: of `block` numbers along each of the last two axes, the last of them cut off.
  Behind a row's length along `axis`, the tensor is 0. A seed is below 2^62; the tensor has at most 2^27 numbers and
  8 axes.
- `signature` MAY hold an Ed25519 signature (64 bytes) of the bytes of `manifest.json`, which lists the digests of all
  other parts; it is the archive's last record.
- `tokenizer.json` MAY hold the model's tokenizer as the `tokenizers` package writes it; it is there
  exactly when `Manifest.text` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

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
# int8: linears and convolutions by 8-bit products, the rest in bf16 or fp32. In files that generate text int8 and int4
# are those of the weights alone, and the head and the table of embeddings of int4 are in int8.
Precision = Literal["fp32", "bf16", "int8", "int4"]
Backend = Literal["ipex", "onednn", "native", "plain"]
DType = Literal["int64", "float32"]
# How logits become scores: softmax for one class of several, sigmoid for several at once, none for numbers as they are;
# a cross encoder may choose any, including tanh.
Activation = Literal["softmax", "sigmoid", "tanh", "none"]
# How two vectors are compared; a distance is negated, so that more is nearer.
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
# Text that may hold newlines and other control characters, which all other text may not. Whoever prints it escapes them
# (`runtime.printing`).
FreeText = Annotated[str, "may hold control characters"]


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor. Axes of the same name have the same size in one call.

    `maximum` is None if the model has no limit; it equals `minimum` if the size is fixed. Every size is a multiple of
    `multiple`.
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

    `values` bounds integer inputs (token ids). `fill` is the constant that replaces the whole tensor if the caller
    omits the input; None means that the input is required. `required_token_id` is an id that every row must contain,
    all equally often: models like BART classify by the hidden state at their end token.
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

    `ignored_settings` are settings of the model folder that the user told the exporter to ignore, with their files.
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
    `/proc/cpuinfo`. `native` is the version of this project's own operators, or None.
    """

    torch: str
    torch_rule: Literal["same-minor", "at-least-minor"]
    ipex: str | None
    cpu_flags: tuple[str, ...]
    native: int | None = None


@dataclass(frozen=True)
class Fusion:
    """A fused operator in the executed graph: what it fuses, its name, how often it occurs."""

    kind: str
    operator: str
    count: int


@dataclass(frozen=True)
class Tolerance:
    """Bounds on an output's error against eager fp32, both relative (see `runtime.verification.compare`)."""

    max_error: float
    rms_error: float


@dataclass(frozen=True)
class VerifiedCase:
    """The largest errors of any call at one shape, measured on the written file in a fresh process.

    `case` is the name of the golden case. `shape` maps axis names to sizes; `padded` says whether the rows had several
    lengths. `max_abs_error` is in the output's own units; the other two errors are relative (see
    `runtime.verification.compare`). For outputs that are scores of classes, `argmax_mismatches` says in how many of
    `rows` the class with the largest score differed from the original model's in any call; else it is None.
    """

    case: str
    shape: dict[str, int]
    padded: bool
    output: str
    calls: int
    max_abs_error: float
    max_error: float
    rms_error: float
    rows: int
    argmax_mismatches: int | None


@dataclass(frozen=True)
class Accuracy:
    """One output of the written file compared with eager fp32, on held-out samples of real data.

    A row lies along the output's last axis: an embedding, or the scores of one text or token; padding is left out.
    Cosines are those of rows, `max_error` is the largest of any sample (see `runtime.verification.compare`). For
    outputs that are scores of classes, `argmax_matches` says in how many of `rows` the largest score is at the same
    place; else it is None.
    """

    output: str
    samples: int
    rows: int
    mean_cosine: float
    least_cosine: float
    max_error: float
    argmax_matches: int | None

    @property
    def summary(self) -> str:
        """One line of text."""
        text = f"{self.output}: cosine {self.mean_cosine:.4f} in the mean, {self.least_cosine:.4f} at least; "
        if self.argmax_matches is not None:
            text += f"argmax matches in {self.argmax_matches} of {self.rows} rows; "
        return text + f"largest error {self.max_error:.1e}; {self.samples} held-out samples"


@dataclass(frozen=True)
class Timing:
    """The speed of a candidate when the exporter chose one: the median milliseconds of a call at one shape.

    With `padded`, B rows had the lengths 1/B, 2/B, … of the full length; otherwise all rows were full. `candidate` says
    how it computes (`onednn with eager attention`), `threads` its thread count; the file holds the `chosen` candidate.
    The times were measured on the exporting machine, so they only compare the candidates.
    """

    candidate: str
    chosen: bool
    shape: dict[str, int]
    threads: int
    milliseconds: float
    padded: bool = False


@dataclass(frozen=True)
class Execution:
    """How to run it: each of `warmup_shapes` is to be called `warmup_calls` times after loading, before real traffic.

    If `optimized_execution` is false, a reader SHOULD call with TorchScript's optimisation switched off: this graph
    gains nothing from it, and it makes the first calls slow. The outputs are the same.
    """

    warmup_shapes: tuple[dict[str, int], ...]
    warmup_calls: int
    optimized_execution: bool = True


@dataclass(frozen=True)
class TextRules:
    """What the methods of `session.text` need beyond `tokenizer.json`; ids are None if there is no such token.

    If `token_types` is false, the input `token_type_ids` MUST be left out. `prompt` is put before each text to embed.
    If `padded_length` is given, every text is padded to so many tokens, with or without an `attention_mask`.
    """

    unknown_id: int | None
    class_id: int | None
    mask_id: int | None
    mask_token: str | None
    truncation_side: Literal["left", "right"]
    token_types: bool
    clean_up_spaces: bool
    prompt: FreeText
    padded_length: int | None = None  # None in files of older writers


@dataclass(frozen=True)
class PairTemplate:
    """How a query and a document become one text, for a reranker that reads them inside of a chat template.

    The text is `before`, the query, `between`, the document, `after`; the tokenizer adds no special tokens to it. If
    `strip`, white space around the query and the document is removed first. A text that is cut ends with `last_ids`
    all the same: these replace its last tokens.
    """

    before: FreeText
    between: FreeText
    after: FreeText
    strip: bool
    last_ids: tuple[int, ...]


@dataclass(frozen=True)
class TextInfo:
    """How to turn text into inputs with `tokenizer.json`. `max_length` is in tokens.

    `pair_template` is None if a pair of texts becomes tokens by the tokenizer's own rule.
    """

    max_length: int
    pad_id: int
    pad_token: str
    pad_type_id: int
    padding_side: Literal["left", "right"]
    rules: TextRules | None = None  # None in files of older writers
    pair_template: PairTemplate | None = None  # None in files of older writers


@dataclass(frozen=True)
class TokenOutputs:
    """The further outputs of a model that also gives a weight and a vector per token (BGE-M3).

    `weights` and `vectors` are names of outputs, [batch, sequence] and [batch, sequence, size]. A text's sparse vector
    has for each of its tokens the largest weight at its places, except for those in `skipped_ids`. Its token vectors
    are those of all its tokens but the first.
    """

    weights: str
    vectors: str
    skipped_ids: tuple[int, ...]


@dataclass(frozen=True)
class EmbeddingInfo:
    """How vectors are made and compared, for sentence-embedding and sparse-embedding, and for one tower of a model that
    compares texts with images or sounds.

    `prompts` are texts to put before others, by name. If `normalized`, vectors have length 1, and a vector of which a
    part is kept is divided by the part's length. `tokens` is None if there is a vector per text alone. For a tower, the
    whole model's score of a text and an image is the cosine of their vectors, times `scale`, plus `bias`; they are None
    if the model has no such number.
    """

    prompts: dict[str, FreeText]
    normalized: bool
    similarity: Similarity
    tokens: TokenOutputs | None = None  # None in files of older writers
    scale: float | None = None  # None in files of older writers
    bias: float | None = None  # None in files of older writers


@dataclass(frozen=True)
class Expansion:
    """Tokens behind a text that has fewer than `length`: filled up to `length` with `token_id`.

    Their vectors count as the text's own do. If `attend` is false, the model does not look at them: their place in
    `attention_mask` is 0.
    """

    token_id: int
    length: int
    attend: bool


@dataclass(frozen=True)
class TextSide:
    """How queries, or documents, become vectors of tokens.

    `prompt` is put before each text, `max_length` is in tokens. The vectors of tokens in `skipped_ids` are left out.
    """

    prompt: FreeText
    max_length: int
    skipped_ids: tuple[int, ...] = ()
    expansion: Expansion | None = None


@dataclass(frozen=True)
class LateInteraction:
    """The two sides of a model whose vectors of tokens are compared (ColBERT), and its prompts by name."""

    query: TextSide
    document: TextSide
    prompts: dict[str, FreeText] | None = None  # None in files of older writers


@dataclass(frozen=True)
class CacheTensor:
    """A tensor of keys or of values, [rows, heads, length, width]."""

    heads: int
    width: int
    dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TokenRules:
    """Which tokens may come next: transformers' settings of these names, with what switches each off as its default.

    A row that ends is forced to end with one of `forced_eos_token_ids` at its last place. From the token number
    `decay_start` behind the prompt on, stop tokens become more probable by `decay_factor` (both are
    `exponential_decay_length_penalty`).
    """

    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_length: int = 0
    min_new_tokens: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_ids: tuple[int, ...] = ()
    decay_start: int = 0
    decay_factor: float = 1.0
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class BeamDefaults:
    """How many beams are kept, 1 for none, and transformers' settings for them; `early_stopping` is False, True, never.

    The score of a text is the sum of its logarithms of probabilities divided by its length to the `length_penalty`.
    """

    count: int = 1
    length_penalty: float = 1.0
    early_stopping: Literal["no", "yes", "never"] = "no"


@dataclass(frozen=True)
class SamplingDefaults:
    """How the next token is chosen if the caller does not say, as in `generation_config.json`.

    If `sample` is false, it is the one with the largest logit, or that of the best of several beams. None, for `top_k`
    also 0, switches a step off. `rules` hold in any case.
    """

    sample: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    rules: TokenRules = TokenRules()
    beams: BeamDefaults = BeamDefaults()


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template from messages to a prompt, and the texts that it finds by name beside them (`bos_token`)."""

    template: FreeText
    variables: dict[str, FreeText]


@dataclass(frozen=True)
class GreedyCheck:
    """Greedy tokens of the written file compared with those of transformers' `generate` in fp32.

    `tokens` were compared behind a prompt of `prompt` tokens; `equal` of them, from the first on, are the same.
    `margin` is by how much the original's logit for its own token exceeds that for the file's at the first difference;
    None if there is none.
    """

    prompt: int
    tokens: int
    equal: int
    margin: float | None


@dataclass(frozen=True)
class GenerationInfo:
    """How text is generated with the method `decode`.

    `decode(input_ids, positions, kept, *caches)` takes int64 tensors [rows, tokens], [rows, tokens] and [rows, kept],
    and the tensors that `caches` describes, in that order, all of one length. `positions` says where each token stands
    in its row, from 0 on; all are below that length, which is at most `longest`. It MUST write keys and values of the
    tokens into the caches at these positions, and nothing else. It gives a tuple of one tensor, float32 [rows, kept,
    vocabulary]: the logits behind the tokens whose numbers in this call `kept` holds. What stands in a cache behind a
    token's position MUST NOT change its logits.

    A row ends with one of `stop_ids`. `max_error` and `rms_error` are the largest of `decode` that were measured (see
    `Tolerance`), with prompts at once, in pieces and token by token; None if it was not verified.
    """

    caches: tuple[CacheTensor, ...]
    longest: int
    stop_ids: tuple[int, ...]
    defaults: SamplingDefaults
    chat: ChatTemplate | None
    max_error: float | None = None
    rms_error: float | None = None
    greedy: tuple[GreedyCheck, ...] = ()


@dataclass(frozen=True)
class CtcCharacters:
    """Tokens that are written one after the other, as Wav2Vec2's tokenizer does.

    `tokens` holds one string per id. Equal neighbours are written once, and those equal to `blank` are left out.
    `delimiter` is written as `space`. Spaces at both ends are removed; then letters are made small if `lower_case`, and
    spaces before punctuation are removed if `clean_up_spaces`.
    """

    tokens: tuple[FreeText, ...]
    blank: FreeText | None
    delimiter: FreeText | None
    space: FreeText
    lower_case: bool
    clean_up_spaces: bool


@dataclass(frozen=True)
class CtcInfo:
    """How the scores of a speech recogniser become text: the best id of each step, without repetitions.

    If `characters` is None, equal neighbours are one id, `blank_id` is left out (-1: there is none), and
    `tokenizer.json` decodes the rest. A step is `samples_per_step` samples of the sound; None: it is not known.
    """

    blank_id: int
    samples_per_step: int | None
    characters: CtcCharacters | None = None


@dataclass(frozen=True)
class Preprocessing:
    """What the method `preprocess` takes and makes.

    It takes one tensor with `axes`: of a picture, uint8 with [height, width, channels], of a sound, float32 with
    [samples] at `rate` samples per second. It makes those of the model's inputs that `inputs` names, for one row. If
    `pads`, rows of different sizes are joined by zeros at the end of their axes, in every input: a mask among these
    then says which places are real. Otherwise only rows of the same sizes can be joined.
    """

    kind: Literal["image", "audio"]
    axes: tuple[Axis, ...]
    inputs: tuple[str, ...]
    rate: int | None = None
    pads: bool = False


@dataclass(frozen=True)
class PictureResults:
    """How the outputs for pictures become labels, objects, or classes of pixels.

    `classes` are the names of the classes, by number. `scores` says how logits become scores. Of detectors, `softmax`
    means one object per query, and that the last logit, which has no name, is for no object; `sigmoid` that the `most`
    best pairs of a query and a class are objects. Of classes of pixels it is `none` if they are the largest logits, and
    `softmax` if each query has a class, the last being none, and a mask, which is resized to `mask_size` (height and
    width) first if it is given.
    """

    classes: tuple[str, ...]
    scores: Literal["softmax", "sigmoid", "none"]
    most: int | None = None
    mask_size: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PicturePrompts:
    """How places in a picture become inputs, and the outputs masks of the picture.

    The model's picture is the caller's, resized so that its longer side is `longest_side` (the shorter one in
    proportion, to the nearest pixel), and padded at the end to `padded_size`, height and width. `input_points` are x
    and y in the model's picture, `input_labels` say what they are: 1 a point of the object, 0 one beside it, -1 no
    place, -10 padding, 2 and 3 the upper left and lower right corner of a box. In one call each prompt has one box, or
    none has. `pred_masks`, resized to `padded_size`, cut to the resized picture and resized to the caller's, are above
    0 where the object is.
    """

    longest_side: int
    padded_size: tuple[int, ...]


@dataclass(frozen=True)
class PartDigest:
    """One record of the archive: its name without the top folder, its size, its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a consumer can know about an artifact without running it."""

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
    # Empty if nothing was timed, as in files of older writers.
    timings: tuple[Timing, ...] = ()
    # Empty except for int8.
    accuracy: tuple[Accuracy, ...] = ()
    # What outputs along the sequence hold at padded places: what the model computes there, or, if padding is not
    # computed, the values of the row's last real token.
    padded_output: Literal["computed", "repeated"] = "computed"
    # None for other tasks than sentence-embedding, sparse-embedding and those of towers, and in files of older writers.
    embedding: EmbeddingInfo | None = None
    # None for other tasks than token-embedding, and for a file without a tokenizer.
    late_interaction: LateInteraction | None = None
    # None for other tasks than automatic-speech-recognition, and where the tokenizer's decoding is not known.
    ctc: CtcInfo | None = None
    # None if the file makes no inputs of pictures or sounds, as in files of older writers.
    preprocessing: Preprocessing | None = None
    # None for other tasks than those with labels, boxes or classes of pixels, and in files of older writers.
    pictures: PictureResults | None = None
    # None for other tasks than text-generation.
    generation: GenerationInfo | None = None
    # None for other tasks than mask-generation, and where the folder's processor does something else.
    prompts: PicturePrompts | None = None

    @property
    def sequence(self) -> Axis | None:
        """The inputs' sequence axis, if they have one."""
        return next((axis for spec in self.inputs for axis in spec.axes if axis.name == "sequence"), None)


def longest_text(text: TextInfo, sequence: Axis | None) -> int:
    """The tokens of the longest text that both the tokenizer and the inputs admit."""
    if sequence is None or sequence.maximum is None:
        return text.max_length
    return min(text.max_length, sequence.maximum // sequence.multiple * sequence.multiple)
