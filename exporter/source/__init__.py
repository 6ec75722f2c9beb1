"""Load what is to be exported: configuration, weights, tokenizer, sentence head.

In: an ExportRequest. Out: a `Source`. Refuses, with a named error, whatever is missing, untrusted or untrained
(see the modules of this room). The only room that imports transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from exporter.request import ExportRequest
from exporter.source.bounds import bounds_of, check_sizes, within
from exporter.source.hub import Location, locate, read_json, translated
from exporter.source.positions import longest_sequence
from exporter.source.sentence import SentenceHead, read_sentence_head
from exporter.source.task import choose_task, classes
from exporter.source.tokenizer import TokenizerPart, load_tokenizer
from exporter.source.weights import digest, load_model
from exporter.tasks import TASKS, Task
from runtime.errors import CheckpointError
from runtime.manifest import Activation, ModelInfo

__all__ = ["SentenceHead", "Source", "TokenizerPart", "load_source"]


@dataclass(frozen=True)
class Source:
    """A loaded model: fp32, in evaluation mode, with all that the stages behind need to know of it.

    `vocabulary` is the number of token ids, 0 for a model without text; `preprocessor` what the folder says of
    preparing images or sound, empty where it says nothing. `compares`: the model type compares texts with images.
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
    config = _load_config(location, request)
    nothing_stored = request.random_weights and location.folder is None
    modules = None if nothing_stored else read_json(location, "modules.json")
    task, reason = choose_task(config, request.task, modules, request.trust_remote_code)
    with within(bounds_of(location.folder, request.random_weights), location.id):
        model, unused = load_model(location, config, task, request, attention)
    _as_one_pass(model)
    longest = longest_sequence(model)
    labels = _labels(model.config) if task.labels else ()
    vocabulary = _vocabulary(model)
    return Source(
        model=model,
        config=model.config,
        info=ModelInfo(
            id=location.id,
            revision=getattr(config, "_commit_hash", None),
            type=config.model_type,
            architecture=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            weights_sha256=digest(model),
            random_weights=request.random_weights,
        ),
        task=task,
        task_reason=reason,
        tokenizer=load_tokenizer(location, request, longest, vocabulary, task.pooled),
        sentence_head=read_sentence_head(location, modules) if task.pooled else None,
        labels=labels,
        activation=_activation(model.config, labels) if task.name == "text-classification" else "none",
        longest_sequence=longest,
        vocabulary=vocabulary,
        preprocessor={} if nothing_stored else _preprocessor(location),
        compares=bool(classes(config, TASKS["zero-shot-image-classification"])),
        unused_weights=unused,
    )


def _load_config(location: Location, request: ExportRequest) -> Any:
    if location.short is not None and request.random_weights:
        short = location.short
        config: Any = AutoConfig.for_model(short.model_type, **short.config)
        config.architectures = [short.architecture]
        return config
    if location.folder is not None and not (location.folder / "config.json").is_file():
        raise CheckpointError(
            f"{location.folder} has no config.json", "a model folder as transformers saves it", "check the path"
        )
    said = read_json(location, "config.json")
    if isinstance(said, dict) and not {"model_type", "auto_map"} & set(said):
        # transformers 4 would take the model type from the folder's name.
        raise CheckpointError(
            f"config.json of {location.id} names no model_type", "the type of the model", "copy config.json again"
        )
    check_sizes(said, location.id)
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


def _labels(config: Any) -> tuple[str, ...]:
    names = config.id2label or {}
    return tuple(str(names[index]) for index in sorted(names))


def _activation(config: Any, labels: tuple[str, ...]) -> Activation:
    """As transformers' pipelines choose: the problem type first, then the number of labels."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or len(labels) == 1:
        return "sigmoid"
    return "softmax"
