"""Tasks, as pure data: which class to load, what comes out, how exact it has to be.

In: nothing. Out: `TASKS`, `TOLERANCES`. To add a task, add a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporter.parameters import Group
from runtime.manifest import Precision, Tolerance


@dataclass(frozen=True)
class Output:
    """A field of the model's output and the names of its axes; `batch` and `sequence` are dynamic.

    An optional field is left out of the artifact where the model does not give it.
    """

    name: str
    axes: tuple[str, ...]
    optional: bool = False


OutputKind = Literal["vectors", "scores"]


@dataclass(frozen=True)
class Task:
    """One task.

    `auto_class` is the class of transformers that loads it; `mapping` is the name of the table in
    `transformers.models.auto.modeling_auto` that lists each model type's class for it. `pooled` says
    that a sentence-transformers head stands behind the model. `labels` says that the outputs are classes. `kind`
    chooses the tolerance: `vectors` are used by direction and distance, `scores` by which is largest. `groups` are the
    kinds of data that go in, where that is not plain from the model's main input. `choices` says that each row holds
    several texts to choose from.
    """

    name: str
    auto_class: str
    mapping: str
    outputs: tuple[Output, ...]
    kind: OutputKind = "scores"
    labels: bool = False
    pooled: bool = False
    groups: tuple[Group, ...] = ()
    choices: bool = False


_TASKS = (
    # Before feature-extraction: the classes of image models stand in both tables.
    Task(
        "zero-shot-image-classification",
        "AutoModelForZeroShotImageClassification",
        "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        (
            Output("logits_per_image", ("batch", "texts")),
            Output("text_embeds", ("texts", "embedding")),
            Output("image_embeds", ("batch", "embedding")),
        ),
        groups=("text", "image"),
    ),
    Task(
        "image-feature-extraction",
        "AutoModel",
        "MODEL_FOR_IMAGE_MAPPING_NAMES",
        (
            Output("last_hidden_state", ("batch", "position", "hidden")),
            Output("pooler_output", ("batch", "hidden"), optional=True),
        ),
        kind="vectors",
        groups=("image",),
    ),
    Task(
        "feature-extraction",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (
            Output("last_hidden_state", ("batch", "sequence", "hidden")),
            Output("pooler_output", ("batch", "hidden"), optional=True),
        ),
        kind="vectors",
    ),
    Task(
        "sentence-embedding",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (Output("sentence_embedding", ("batch", "embedding")),),
        kind="vectors",
        pooled=True,
    ),
    Task(
        "fill-mask",
        "AutoModelForMaskedLM",
        "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
        (Output("logits", ("batch", "sequence", "vocabulary")),),
    ),
    Task(
        "text-classification",
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        (Output("logits", ("batch", "label")),),
        labels=True,
    ),
    Task(
        "token-classification",
        "AutoModelForTokenClassification",
        "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
        (Output("logits", ("batch", "sequence", "label")),),
        labels=True,
    ),
    Task(
        "question-answering",
        "AutoModelForQuestionAnswering",
        "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
        (Output("start_logits", ("batch", "sequence")), Output("end_logits", ("batch", "sequence"))),
    ),
    Task(
        "multiple-choice",
        "AutoModelForMultipleChoice",
        "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
        (Output("logits", ("batch", "choices")),),
        choices=True,
    ),
    Task(
        "next-sentence-prediction",
        "AutoModelForNextSentencePrediction",
        "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES",
        (Output("logits", ("batch", "label")),),
    ),
    Task(
        "image-classification",
        "AutoModelForImageClassification",
        "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        (Output("logits", ("batch", "label")),),
        labels=True,
        groups=("image",),
    ),
    Task(
        "object-detection",
        "AutoModelForObjectDetection",
        "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
        (
            Output("logits", ("batch", "query", "class")),
            Output("pred_boxes", ("batch", "query", "coordinate")),
        ),
        groups=("image",),
    ),
    Task(
        "semantic-segmentation",
        "AutoModelForSemanticSegmentation",
        "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
        (Output("logits", ("batch", "label", "row", "column")),),
        groups=("image",),
    ),
    Task(
        "depth-estimation",
        "AutoModelForDepthEstimation",
        "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
        (Output("predicted_depth", ("batch", "row", "column")),),
        groups=("image",),
    ),
    Task(
        "masked-image-modeling",
        "AutoModelForMaskedImageModeling",
        "MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES",
        (Output("reconstruction", ("batch", "channels", "row", "column")),),
        groups=("image",),
    ),
    Task(
        "audio-classification",
        "AutoModelForAudioClassification",
        "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
        (Output("logits", ("batch", "label")),),
        labels=True,
        groups=("audio",),
    ),
    Task(
        "automatic-speech-recognition",
        "AutoModelForCTC",
        "MODEL_FOR_CTC_MAPPING_NAMES",
        (Output("logits", ("batch", "step", "vocabulary")),),
        groups=("audio",),
    ),
    Task(
        "audio-frame-classification",
        "AutoModelForAudioFrameClassification",
        "MODEL_FOR_AUDIO_FRAME_CLASSIFICATION_MAPPING_NAMES",
        (Output("logits", ("batch", "step", "label")),),
        labels=True,
        groups=("audio",),
    ),
    Task(
        "audio-xvector",
        "AutoModelForAudioXVector",
        "MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES",
        (
            Output("logits", ("batch", "label")),
            Output("embeddings", ("batch", "embedding")),
        ),
        groups=("audio",),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}

# Bounds on the relative errors that `runtime.check` defines, against eager fp32 of the original model.
# fp32: only the order of additions differs. Errors of 1e-6 were measured over 12 layers; a hundredfold leaves room for
# deeper models and other kernels, and lies far below any wrong answer seen.
# bf16 keeps 8 bits: each rounding errs by up to 2**-9 of a number, and a layer rounds some ten times. Vectors come out
# of a normalisation, which keeps their errors even; scores are differences of larger numbers, so theirs are larger.
# docs/decisions.md has the errors measured.
TOLERANCES: dict[tuple[Precision, OutputKind], Tolerance] = {
    ("fp32", "vectors"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("fp32", "scores"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("bf16", "vectors"): Tolerance(max_error=0.05, rms_error=0.03),
    ("bf16", "scores"): Tolerance(max_error=0.08, rms_error=0.04),
}
