"""Load what is to be exported: configuration, weights, tokenizer and sentence head of one model.

Whatever is missing, damaged, not trusted or not trained is refused with an error that names it; the modules beside this
one say what they refuse. Besides the Trainer's, this folder is the only one that imports transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from exporter.config.request import ExportRequest
from exporter.config.tasks import TASKS, Task
from exporter.loading.adapter_files import alone
from exporter.loading.adapter_merge import expect_peft, merge
from exporter.loading.generation_settings import GenerationSettings, read_generation
from exporter.loading.hub import ModelFiles
from exporter.loading.image_sizes import Size, processor_grids, read_processor
from exporter.loading.library_modules import load_library_modules
from exporter.loading.m3_heads import token_outputs
from exporter.loading.max_length import longest_sequence
from exporter.loading.model_folder import Folder, read_folder
from exporter.loading.pooling import Head, M3Head, SentenceHead, SpladeHead
from exporter.loading.prompts import take_prompts
from exporter.loading.score_activation import activation_of, labels_of, sound_activation
from exporter.loading.sentence_head import read_following, read_sentence_head, read_token_head
from exporter.loading.sentence_modules import Modules
from exporter.loading.settings import Settings
from exporter.loading.size_limits import bounds_of, enforce_bounds
from exporter.loading.sound_settings import SoundSettings, read_sounds
from exporter.loading.sparse_head import read_sparse_head
from exporter.loading.task_selection import classes
from exporter.loading.text_parts import complete_classifier, hidden_size, read_text_parts
from exporter.loading.text_settings import TextSettings
from exporter.loading.token_scores import LABELS
from exporter.loading.tokenizer import TokenizerPart
from exporter.loading.towers import TextPadding, take_tower
from exporter.loading.weight_codes import Codes
from exporter.loading.weights import digest, load_model
from runtime.format.manifest import Activation, EmbeddingInfo, LateInteraction, ModelInfo

__all__ = ["Source", "TokenizerPart", "load_source"]


@dataclass(frozen=True)
class Source:
    """A loaded model in fp32 and evaluation mode, with all that the later stages need to know about it.

    `text_padding`: all texts are padded to one length. `vocabulary` is the number of token ids, 0 for a model without
    text. `preprocessor` holds the folder's settings for images or audio, empty if there are none; `image_processor` is
    transformers' object for images, or None, `image_sizes` are those that it makes of usual photos, `patch_grids`
    heights and widths in patches. `compares`: the model type compares texts with images. `sounds` is None for models
    that take none, `generation` for those that do not generate text. `codes` are those of a checkpoint that was
    quantised. `notes` say what was decided about the folder's settings, and why.
    """

    model: Any
    config: Any
    info: ModelInfo
    task: Task
    task_reason: str
    tokenizer: TokenizerPart
    sentence_head: Head | None
    embedding: EmbeddingInfo | None
    late_interaction: LateInteraction | None
    labels: tuple[str, ...]
    activation: Activation
    longest_sequence: int | None
    text_padding: TextPadding | None
    vocabulary: int
    preprocessor: dict[str, Any]
    image_processor: Any
    image_sizes: tuple[Size, ...]
    patch_grids: tuple[Size, ...]
    sounds: SoundSettings | None
    generation: GenerationSettings | None
    compares: bool
    codes: tuple[Codes, ...]
    unused_weights: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def attention(self) -> str:
        """The form of attention that the model was loaded with."""
        return str(getattr(self.config, "_attn_implementation", "eager"))

    @property
    def reads_padding(self) -> bool:
        """Whether outputs at padded places are used: those of tokens that are added to queries."""
        added = None if self.late_interaction is None else self.late_interaction.query.expansion
        return added is not None and not added.attend

    @property
    def summary(self) -> str:
        """What was loaded, for people."""
        weights = "random weights" if self.info.random_weights else f"weights {self.info.weights_sha256[:12]}"
        text = f"{self.info.architecture} from {self.info.id}, {self.info.parameters / 1e6:.1f} M parameters, {weights}"
        if self.unused_weights:
            text += f"; {len(self.unused_weights)} weights of the checkpoint not used ({self.unused_weights[0]}, …)"
        return text


def load_source(request: ExportRequest, attention: str = "eager") -> Source:
    """Load the model; `attention` is transformers' `attn_implementation`.

    Raises:
        ExportError: one of its branches.
    """
    folder = read_folder(request)
    task, settings, modules, texts = folder.task, folder.settings, folder.modules, folder.texts
    model, unused, codes, merged = _load_weights(folder, request, attention)
    tower = None
    if task.tower:
        following = [] if modules is None else read_following(settings, modules, texts.truncate_dim, request)
        model, tower = take_tower(model, task, texts.similarity, following)
    if task.prompted:
        take_prompts(model)
    _prepare_for_one_pass(model)
    longest, vocabulary = longest_sequence(model), _vocabulary(model)
    head = _read_head(settings, modules, texts, model, request) if task.pooled else None
    labels, activation, scored = _scores(task, model, modules, texts)
    text = read_text_parts(folder, model, head, longest, vocabulary, request)
    settings.finish()
    tokenizer, completed = complete_classifier(folder, model, text.tokenizer, vocabulary)
    preprocessor = _preprocessor(folder.base) if folder.stored else {}
    image_processor, image_sizes, pictured = read_processor(folder.base, preprocessor, model, request)
    sounds, heard = read_sounds(folder.base, request, model, task, tokenizer) if folder.stored else (None, [])
    generation, generated = None, list[str]()
    if task.generates:
        generation, note = read_generation(model, tokenizer, vocabulary, folder.files.id)
        generated.append(note)
    ignored = [f"setting ignored, as requested: {key}" for key in settings.ignored]
    embedding = _embedding_info(text.head, texts, tokenizer) if tower is None else replace(tower, prompts=texts.prompts)
    return Source(
        model=model,
        config=model.config,
        info=_model_info(model, text.head, folder.config, settings, request),
        task=task,
        task_reason=folder.task_reason,
        tokenizer=tokenizer,
        sentence_head=text.head,
        embedding=embedding,
        late_interaction=text.late_interaction,
        labels=labels,
        activation=activation,
        longest_sequence=longest,
        text_padding=text.padding,
        vocabulary=vocabulary,
        preprocessor=preprocessor,
        image_processor=image_processor,
        image_sizes=image_sizes,
        patch_grids=processor_grids(folder.base, preprocessor, request),
        sounds=sounds,
        generation=generation,
        compares=bool(classes(folder.config, TASKS["zero-shot-image-classification"])),
        codes=codes,
        unused_weights=unused,
        notes=(*ignored, *merged, *scored, *text.notes, *completed, *pictured, *heard),
    )


def _scores(
    task: Task, model: Any, modules: Modules | None, texts: TextSettings
) -> tuple[tuple[str, ...], Activation, list[str]]:
    """The labels, what turns logits into scores, and notes."""
    labels = LABELS if task.scores_tokens else labels_of(model.config) if task.labels else ()
    if task.name == "audio-classification":
        activation, reason = sound_activation(model.config)
        return labels, activation, [f"scores by {activation}: {reason}"]
    if not task.classifies_texts and not task.scores_tokens:
        return labels, "none", []
    cross_encoder = modules is not None or task.single_label or task.scores_tokens
    activation, reason = activation_of(model.config, len(labels), texts.activation, cross_encoder)
    return labels, activation, [f"scores by {activation}: {reason}"]


def _load_weights(
    folder: Folder, request: ExportRequest, attention: str
) -> tuple[Any, tuple[str, ...], tuple[Codes, ...], list[str]]:
    """The model, the checkpoint's weights that it does not use, its codes, and notes.

    An adapter is merged into the model, whose weights are then no longer those of codes.
    """
    base, config, task, adapter = folder.base, folder.config, folder.task, folder.adapter
    with enforce_bounds(bounds_of(base, request.random_weights), base.id):
        if adapter is None:
            notes = [] if base.gguf is None else [f"weights of {base.gguf} dequantised to fp32 by transformers' reader"]
            model, unused, codes = load_model(base, config, task, request, attention)
            notes += [f"{len(codes)} linears of 4-bit codes dequantised to fp32"] if codes else []
            return model, unused, codes, notes
        expect_peft(adapter)
        labels = adapter.labels() if task.labels else None
        if labels is not None and labels != config.num_labels:
            config.num_labels = labels
        with alone(base) as files:
            model, unused, _ = load_model(files, config, task, request, attention, adapter.sizes)
    model, note = merge(model, adapter)
    return model, unused, (), [note]


def _read_head(
    settings: Settings, modules: Modules | None, texts: TextSettings, model: Any, request: ExportRequest
) -> Head:
    """What follows the model; only a sparse model may come without modules."""
    if modules is None or modules.task == "sparse-embedding":
        return read_sparse_head(settings, modules)
    if modules.own_code:
        return load_library_modules(settings.files, request, texts.truncate_dim)
    size = hidden_size(model)
    if modules.task == "token-embedding":
        return read_token_head(settings, modules, size, request)
    return read_sentence_head(settings, modules, texts.truncate_dim, size, request)


def _embedding_info(head: Head | None, texts: TextSettings, tokenizer: TokenizerPart) -> EmbeddingInfo | None:
    if isinstance(head, SpladeHead):
        return EmbeddingInfo(texts.prompts, False, texts.similarity)
    if not isinstance(head, SentenceHead):
        return None
    tokens = token_outputs(tokenizer) if isinstance(head, M3Head) else None
    return EmbeddingInfo(texts.prompts, head.normalizes, texts.similarity, tokens)


def _model_info(model: Any, head: Head | None, config: Any, settings: Settings, request: ExportRequest) -> ModelInfo:
    return ModelInfo(
        id=settings.files.id,
        revision=getattr(config, "_commit_hash", None),
        type=config.model_type,
        architecture=type(model).__name__,
        parameters=sum(one.numel() for part in (model, head) if part is not None for one in part.parameters()),
        weights_sha256=digest(model, head),
        random_weights=request.random_weights,
        ignored_settings=settings.ignored,
    )


def _preprocessor(files: ModelFiles) -> dict[str, Any]:
    """The settings of the image processor or feature extractor: a file of its own, or parts of a joint one.

    transformers 5 saves processors of several parts as `processor_config.json`.
    """
    alone = files.read_json("preprocessor_config.json")
    if isinstance(alone, dict):
        return alone
    joint = files.read_json("processor_config.json")
    parts = [joint.get(name) for name in ("image_processor", "feature_extractor")] if isinstance(joint, dict) else []
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


def _prepare_for_one_pass(model: Any) -> None:
    """Override settings that say how the model is called, not what it computes.

    A single forward pass does not need the keys and values that decoders keep for the next one. Outputs must have
    names, which `return_dict: false` and `torchscript: true` take away.
    """
    wanted = {"use_cache": False, "torchscript": False, "return_dict": True}
    for module in model.modules():
        config = getattr(module, "config", None)
        for name, value in wanted.items():
            if config is not None and getattr(config, name, value) is not value:
                setattr(config, name, value)


def _vocabulary(model: Any) -> int:
    """The number of token ids: the rows of the embedding table, or what the configuration says if there is no table."""
    try:
        embeddings = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):  # models without text
        embeddings = None
    if isinstance(embeddings, torch.nn.Embedding):
        return int(embeddings.num_embeddings)
    return int(getattr(model.config.get_text_config(), "vocab_size", 0) or 0)
