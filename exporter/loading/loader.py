"""Load what is to be exported: configuration, weights, tokenizer, sentence head.

In: an ExportRequest. Out: a `Source`. Refuses, with a named error, whatever is missing, untrusted or untrained
(see the modules of this room). The only room that imports transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from exporter.config.request import ExportRequest
from exporter.config.tasks import TASKS, Task
from exporter.loading.hub import Location, inside, locate, read_json, translated
from exporter.loading.max_length import longest_sequence
from exporter.loading.padding_token import complete_padding
from exporter.loading.pooling import SentenceHead
from exporter.loading.score_activation import activation_of, labels_of
from exporter.loading.sentence_head import read_sentence_head
from exporter.loading.sentence_modules import expect_supported, read_modules
from exporter.loading.settings import Settings
from exporter.loading.size_limits import bounds_of, check_sizes, within
from exporter.loading.task_selection import choose_task, classes
from exporter.loading.text_settings import TextSettings, read_texts
from exporter.loading.tokenizer import TokenizerPart, load_tokenizer
from exporter.loading.unsupported import expect_configuration, expect_no_adapter, expect_plain_weights
from exporter.loading.weights import digest, load_model
from runtime.format.manifest import Activation, ModelInfo

__all__ = ["Source", "TokenizerPart", "load_source"]


@dataclass(frozen=True)
class Source:
    """A loaded model: fp32, in evaluation mode, with all that the stages behind need to know of it.

    `vocabulary` is the number of token ids, 0 for a model without text; `preprocessor` what the folder says of
    preparing images or sound, empty where it says nothing. `compares`: the model type compares texts with images.
    `notes` says, in words, what was decided about the folder's settings, and why.
    """

    model: Any
    config: Any
    info: ModelInfo
    task: Task
    task_reason: str
    tokenizer: TokenizerPart
    sentence_head: SentenceHead | None
    labels: tuple[str, ...]
    activation: Activation
    longest_sequence: int | None
    vocabulary: int
    preprocessor: dict[str, Any]
    compares: bool
    unused_weights: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """What was loaded, for people."""
        weights = "random weights" if self.info.random_weights else f"weights {self.info.weights_sha256[:12]}"
        text = f"{self.info.architecture} from {self.info.id}, {self.info.parameters / 1e6:.1f} M parameters, {weights}"
        if self.unused_weights:
            text += f"; {len(self.unused_weights)} weights of the checkpoint not used ({self.unused_weights[0]}, …)"
        return text


def load_source(request: ExportRequest, attention: str = "eager") -> Source:
    """Load the model; `attention` is the form it computes attention in.

    Raises:
        ExportError: one of its branches.
    """
    location = locate(request)
    nothing_stored = request.random_weights and location.folder is None
    settings = Settings(location, request.ignore_settings)
    modules = None if nothing_stored else read_modules(settings)
    # Where config.json, weights and tokenizer are.
    files = inside(location, modules.model_path if modules is not None else "")
    if not nothing_stored:
        expect_no_adapter(files)
        expect_configuration(files)
    config = _load_config(files, request)
    expect_plain_weights(location, config)
    task, reason = choose_task(config, request.task, modules, request.trust_remote_code)
    texts = TextSettings()
    if modules is not None and task.name == modules.task:
        expect_supported(location.id, modules)
        texts = read_texts(settings, files, modules)
    else:
        modules = None
    with within(bounds_of(files.folder, request.random_weights), location.id):
        model, unused = load_model(files, config, task, request, attention)
    _as_one_pass(model)
    longest = longest_sequence(model)
    labels = labels_of(model.config) if task.labels else ()
    vocabulary = _vocabulary(model)
    head = None
    if task.pooled and modules is not None:
        hidden = getattr(model.config.get_text_config(), "hidden_size", None)
        width = hidden if isinstance(hidden, int) else None
        head = read_sentence_head(settings, modules, texts.truncate_dim, width, request)
    settings.finish()
    activation: Activation = "none"
    why = ""
    if task.name == "text-classification":
        activation, why = activation_of(model.config, len(labels), texts.activation, modules is not None)
    classifies = task.name == "text-classification"
    pad_id = getattr(model.config.get_text_config(), "pad_token_id", None) if classifies else None
    tokenizer = load_tokenizer(files, request, longest, vocabulary, texts, pad_id)
    filled = complete_padding(location.id, model.config, tokenizer) if classifies else ""
    return Source(
        model=model,
        config=model.config,
        info=ModelInfo(
            id=location.id,
            revision=getattr(config, "_commit_hash", None),
            type=config.model_type,
            architecture=type(model).__name__,
            parameters=sum(one.numel() for part in (model, head) if part is not None for one in part.parameters()),
            weights_sha256=digest(model, head),
            random_weights=request.random_weights,
            ignored_settings=settings.ignored,
        ),
        task=task,
        task_reason=reason,
        tokenizer=tokenizer,
        sentence_head=head,
        labels=labels,
        activation=activation,
        longest_sequence=longest,
        vocabulary=vocabulary,
        preprocessor={} if nothing_stored else _preprocessor(files),
        compares=bool(classes(config, TASKS["zero-shot-image-classification"])),
        unused_weights=unused,
        notes=(
            *(f"setting ignored, as requested: {key}" for key in settings.ignored),
            *([f"scores by {activation}: {why}"] if why else []),
            *([filled] if filled else []),
        ),
    )


def _load_config(location: Location, request: ExportRequest) -> Any:
    if location.short is not None and request.random_weights:
        short = location.short
        config: Any = AutoConfig.for_model(short.model_type, **short.config)
        config.architectures = [short.architecture]
        return config
    check_sizes(read_json(location, "config.json"), location.id)
    with translated(location):
        config = AutoConfig.from_pretrained(
            location.reference, trust_remote_code=request.trust_remote_code, **location.options
        )
    return config  # noqa: RET504 (returned outside, so that errors of the block above are translated)


def _preprocessor(location: Location) -> dict[str, Any]:
    """The settings of the image processor or feature extractor: a file of its own, or parts of a joint one.

    transformers 5 saves processors of several parts as `processor_config.json`.
    """
    alone = read_json(location, "preprocessor_config.json")
    if isinstance(alone, dict):
        return alone
    joint = read_json(location, "processor_config.json")
    parts = [joint.get(name) for name in ("image_processor", "feature_extractor")] if isinstance(joint, dict) else []
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


def _as_one_pass(model: Any) -> None:
    """Settings of the folder that say how the model is called, not what it computes, as an export needs them.

    One forward pass has no use for the keys and values that decoders keep for the next one. Outputs have names, which
    `return_dict: false` and `torchscript: true` take away.
    """
    wanted = {"use_cache": False, "torchscript": False, "return_dict": True}
    for module in model.modules():
        config = getattr(module, "config", None)
        for name, value in wanted.items():
            if config is not None and getattr(config, name, value) is not value:
                setattr(config, name, value)


def _vocabulary(model: Any) -> int:
    """Rows of the token table; where embeddings are no table, what the configuration says."""
    try:
        embeddings = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):  # models without text
        embeddings = None
    if isinstance(embeddings, torch.nn.Embedding):
        return int(embeddings.num_embeddings)
    return int(getattr(model.config.get_text_config(), "vocab_size", 0) or 0)
