"""Tasks, as pure data: which class to load, what goes in and what comes out. To add a task, add an entry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from exporter.config.forward_parameters import Group


@dataclass(frozen=True)
class Output:
    """A field of the model's output and the names of its axes; `batch` and `sequence` vary.

    An optional field is left out of the artifact if the model does not give it.
    """

    name: str
    axes: tuple[str, ...]
    optional: bool = False


OutputKind = Literal["vectors", "scores"]


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as users write it.
        auto_class: the class of transformers that loads it.
        mapping: the table in `transformers.models.auto.modeling_auto` with each model type's class for it.
        outputs: the model's outputs.
        kind: chooses the tolerance: `vectors` are used by direction and distance, `scores` by which is largest.
        labels: the outputs are classes.
        pooled: a sentence-transformers head follows the model.
        groups: the kinds of data that go in, if the model's main input does not tell.
        choices: each row holds several texts to choose from.
        single_label: the model has one label, whose score ranks pairs of texts.
        usual_head: without a description of that head, the library's usual one follows.
        generates: text is written token by token, with a cache of keys and values.
        scores_tokens: the output is what the model says to a few tokens of the vocabulary, at each text's last token.
        whole: if a model lacks a required output, all its tensors are exported instead, under their own names.
        tower: the method of a model with several towers that computes this one's vectors; only classes with it have
            the task.
        prompted: points and boxes in each picture say what is asked for; only classes whose prompts are known have the
            task.
    """

    name: str
    auto_class: str
    mapping: str
    outputs: tuple[Output, ...]
    kind: OutputKind = "scores"
    labels: bool = False
    pooled: bool = False
    usual_head: bool = False
    scores_tokens: bool = False
    generates: bool = False
    groups: tuple[Group, ...] = ()
    choices: bool = False
    single_label: bool = False
    whole: bool = False
    tower: str = ""
    prompted: bool = False

    @property
    def classifies_texts(self) -> bool:
        """Whether the model is a text classifier: its labels, activation and padding id are those of one."""
        return self.auto_class == "AutoModelForSequenceClassification"


_TASKS = (
    # Before feature-extraction, which has the same classes.
    Task(
        "mask-generation",
        "AutoModelForMaskGeneration",
        "MODEL_FOR_MASK_GENERATION_MAPPING_NAMES",
        (
            Output("pred_masks", ("batch", "prompts", "choice", "row", "column")),
            Output("iou_scores", ("batch", "prompts", "choice")),
        ),
        groups=("image",),
        prompted=True,
    ),
    # Before feature-extraction: the classes of image models, and of some speech recognisers, are in both tables.
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
        whole=True,
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
        whole=True,
    ),
    Task(
        "automatic-speech-recognition",
        "AutoModelForCTC",
        "MODEL_FOR_CTC_MAPPING_NAMES",
        (Output("logits", ("batch", "step", "vocabulary")),),
        groups=("audio",),
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
        whole=True,
    ),
    Task(
        "sentence-embedding",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (
            Output("sentence_embedding", ("batch", "embedding")),
            Output("token_weights", ("batch", "sequence"), optional=True),
            Output("token_vectors", ("batch", "sequence", "size"), optional=True),
        ),
        kind="vectors",
        pooled=True,
    ),
    # One weight per entry of the vocabulary (SPLADE): the scores of fill-mask, pooled over the tokens.
    Task(
        "sparse-embedding",
        "AutoModelForMaskedLM",
        "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
        (Output("sparse_embedding", ("batch", "vocabulary")),),
        kind="vectors",
        pooled=True,
        usual_head=True,
    ),
    # A vector per token for late interaction (ColBERT): those of the model, projected.
    Task(
        "token-embedding",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (Output("token_vectors", ("batch", "sequence", "embedding")),),
        kind="vectors",
        pooled=True,
    ),
    # One tower of a model that compares texts with images or sounds (CLIP, SigLIP, CLAP): one vector per row.
    Task(
        "text-embedding",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (Output("text_embeds", ("batch", "embedding")),),
        kind="vectors",
        groups=("text",),
        tower="get_text_features",
    ),
    Task(
        "image-embedding",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (Output("image_embeds", ("batch", "embedding")),),
        kind="vectors",
        groups=("image",),
        tower="get_image_features",
    ),
    Task(
        "audio-embedding",
        "AutoModel",
        "MODEL_MAPPING_NAMES",
        (Output("audio_embeds", ("batch", "embedding")),),
        kind="vectors",
        groups=("audio",),
        tower="get_audio_features",
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
    # A text classifier of one label. After text-classification: both have the same classes.
    Task(
        "reranking",
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        (Output("logits", ("batch", "label")),),
        labels=True,
        single_label=True,
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
        whole=True,
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
    # Before text-generation-scoring: both have the same classes.
    Task(
        "text-generation",
        "AutoModelForCausalLM",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        (Output("logits", ("batch", "sequence", "vocabulary")),),
        generates=True,
    ),
    # One forward pass: the scores of every next token at once, without a cache.
    Task(
        "text-generation-scoring",
        "AutoModelForCausalLM",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        (Output("logits", ("batch", "sequence", "vocabulary")),),
    ),
    Task(
        "text2text-scoring",
        "AutoModelForSeq2SeqLM",
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        (Output("logits", ("batch", "decoder_sequence", "vocabulary")),),
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
        whole=True,
    ),
    # Instances, or whatever the model was trained for: one mask and its class per query.
    Task(
        "image-segmentation",
        "AutoModelForUniversalSegmentation",
        "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
        (
            Output("class_queries_logits", ("batch", "query", "class")),
            Output("masks_queries_logits", ("batch", "query", "row", "column")),
        ),
        groups=("image",),
        whole=True,
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

# Reranking by a decoder, which says yes or no to a text that holds query and document.
DECODER_RERANKING = replace(
    TASKS["reranking"],
    auto_class="AutoModelForCausalLM",
    mapping="MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    single_label=False,
    scores_tokens=True,
)
