"""Load what is to be exported: configuration, weights, tokenizer and sentence head of one model.

Whatever is missing, damaged, not trusted or not trained is refused with an error that names it; the modules beside this
one say what they refuse. Besides the Trainer's, this folder is the only one that imports transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoConfig

from exporter.config.request import ExportRequest
from exporter.config.tasks import TASKS, Task
from exporter.loading.adapter_files import AdapterFiles, alone, find_adapter
from exporter.loading.adapter_merge import expect_peft, merge
from exporter.loading.generation_settings import GenerationSettings, read_generation
from exporter.loading.hub import ModelFiles, locate
from exporter.loading.image_sizes import Size, processor_grids, read_processor
from exporter.loading.late_interaction import read_late_interaction
from exporter.loading.library_modules import load_library_modules
from exporter.loading.m3_heads import add_heads, token_outputs
from exporter.loading.max_length import longest_sequence
from exporter.loading.padding_side import choose_side
from exporter.loading.padding_token import complete_padding
from exporter.loading.pair_template import read_pair_template
from exporter.loading.pooling import Head, M3Head, SentenceHead, SpladeHead
from exporter.loading.score_activation import activation_of, labels_of, sound_activation
from exporter.loading.sentence_head import read_following, read_sentence_head, read_token_head
from exporter.loading.sentence_modules import Modules, expect_supported, read_modules
from exporter.loading.settings import Settings
from exporter.loading.size_limits import bounds_of, check_sizes, enforce_bounds
from exporter.loading.sound_settings import SoundSettings, read_sounds
from exporter.loading.sparse_head import read_sparse_head
from exporter.loading.task_selection import choose_task, classes
from exporter.loading.text_settings import ChatSettings, TextSettings, read_texts
from exporter.loading.token_scores import LABELS, read_token_ids, score_tokens
from exporter.loading.tokenizer import TokenizerPart, has_tokenizer, load_tokenizer
from exporter.loading.towers import TextPadding, pad_texts, take_tower, takes_texts
from exporter.loading.unsupported import expect_configuration, expect_plain_weights
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
    that take none, `generation` for those that do not generate text. `notes` say what was decided about the folder's
    settings, and why.
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
    whole = locate(request)
    nothing_stored = request.random_weights and whole.folder is None
    settings = Settings(whole, request.ignore_settings)
    modules = None if nothing_stored else read_modules(settings)
    if modules is not None and (request.task == "auto" or modules.computed_by(request.task)):
        expect_supported(whole.id, modules, request.trust_remote_code)
    # Older sentence-transformers folders have config.json, weights and tokenizer in a folder of their own.
    files = whole.inside(modules.model_path if modules is not None else "")
    adapter = None if nothing_stored else find_adapter(files, request)
    base = files if adapter is None else adapter.base
    config = _load_config(base, request, nothing_stored)
    task, task_reason = _choose_task(config, request, modules, adapter)
    texts = TextSettings()
    if modules is not None and modules.computed_by(task.name):
        texts = read_texts(settings, files, modules)
    else:
        modules = None
    model, unused, merged = _load_weights(base, config, task, request, attention, adapter)
    tower = None
    if task.tower:
        following = [] if modules is None else read_following(settings, modules, texts.truncate_dim, request)
        model, tower = take_tower(model, task, texts.similarity, following)
    _prepare_for_one_pass(model)
    longest, vocabulary = longest_sequence(model), _vocabulary(model)
    head = _read_head(settings, modules, texts, model, request) if task.pooled else None
    labels, activation, notes = _scores(task, model, modules, texts)
    notes = [*merged, *notes]
    pad_id = getattr(model.config.get_text_config(), "pad_token_id", None) if task.classifies_texts else None
    if takes_texts(task):
        tokenizer = load_tokenizer(files if has_tokenizer(files) else base, request, longest, vocabulary, texts, pad_id)
    else:
        tokenizer = TokenizerPart(None, None, (), f"no tokenizer ({task.name} takes no texts)")
    tokenizer, padding = pad_texts(files.id, config, task, longest, tokenizer, modules is not None)
    if task.name == "reranking" or texts.chat is not None:
        tokenizer, found = _with_template(files, tokenizer, task, modules, texts)
        notes += found
    if isinstance(head, SentenceHead) and not (modules is not None and modules.own_code):
        head, found = add_heads(files, head, hidden_size(model))
        notes += found
    if task.scores_tokens:
        head = score_tokens(model, read_token_ids(settings, modules, tokenizer), files.id)
    late = None
    if modules is not None and texts.sides is not None:
        late = read_late_interaction(settings, modules, texts.sides, tokenizer, longest)
    settings.finish()
    if task.classifies_texts:
        notes += complete_padding(files.id, model.config, tokenizer)
        tokenizer, side = choose_side(model, tokenizer, vocabulary)
        notes += side
    preprocessor = {} if nothing_stored else _preprocessor(base)
    image_processor, image_sizes, found = read_processor(base, preprocessor, model, request)
    sounds, heard = (None, []) if nothing_stored else read_sounds(base, request, model, task, tokenizer)
    generation = None
    if task.generates:
        generation, note = read_generation(model, tokenizer, vocabulary, files.id)
        notes.append(note)
    return Source(
        model=model,
        config=model.config,
        info=_model_info(model, head, config, settings, request),
        task=task,
        task_reason=task_reason,
        tokenizer=tokenizer,
        sentence_head=head,
        embedding=_embedding_info(head, texts, tokenizer) if tower is None else replace(tower, prompts=texts.prompts),
        late_interaction=late,
        labels=labels,
        activation=activation,
        longest_sequence=longest,
        text_padding=padding,
        vocabulary=vocabulary,
        preprocessor=preprocessor,
        image_processor=image_processor,
        image_sizes=image_sizes,
        patch_grids=processor_grids(base, preprocessor, request),
        sounds=sounds,
        generation=generation,
        compares=bool(classes(config, TASKS["zero-shot-image-classification"])),
        unused_weights=unused,
        notes=(*(f"setting ignored, as requested: {key}" for key in settings.ignored), *notes, *found, *heard),
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


def _with_template(
    files: ModelFiles, tokenizer: TokenizerPart, task: Task, modules: Modules | None, texts: TextSettings
) -> tuple[TokenizerPart, list[str]]:
    """The tokenizer with what stands around query and document, if they go through its chat template."""
    chat = texts.chat
    if modules is None:
        # The library asks a tokenizer with a template whether it takes pairs; a decoder has no other way to take them.
        chat = ChatSettings(required=task.scores_tokens)
    if tokenizer.info is None or chat is None:
        return tokenizer, []
    template = read_pair_template(files, tokenizer.fast, chat)
    # A decoder sees what stands before a token alone, so padding behind the last one changes nothing.
    side = "right" if task.scores_tokens else tokenizer.info.padding_side
    info = replace(tokenizer.info, pair_template=template, padding_side=side)
    notes = [] if template is None else ["pairs of query and document go through the chat template"]
    return replace(tokenizer, info=info), notes


def _load_config(files: ModelFiles, request: ExportRequest, nothing_stored: bool) -> Any:
    """The configuration; a folder that cannot be exported for a reason visible in its files is refused here."""
    if nothing_stored and files.short_name is not None:
        config: Any = AutoConfig.for_model(files.short_name.model_type, **files.short_name.config)
        config.architectures = [files.short_name.architecture]
        return config
    if not nothing_stored:
        expect_configuration(files)
    check_sizes(files.read_json("config.json"), files.id)
    config = files.load(AutoConfig, trust_remote_code=request.trust_remote_code)
    expect_plain_weights(files, config)
    return config


def _choose_task(
    config: Any, request: ExportRequest, modules: Modules | None, adapter: AdapterFiles | None
) -> tuple[Task, str]:
    """The task and the reason; that of an adapter's settings comes before that of its base."""
    if adapter is not None and adapter.task is not None and modules is None and request.task == "auto":
        task, _ = choose_task(config, adapter.task, None, request.trust_remote_code)
        return task, f"the {adapter.kind} adapter was trained for it"
    return choose_task(config, request.task, modules, request.trust_remote_code)


def _load_weights(
    base: ModelFiles, config: Any, task: Task, request: ExportRequest, attention: str, adapter: AdapterFiles | None
) -> tuple[Any, tuple[str, ...], list[str]]:
    """The model, the checkpoint's weights that it does not use, and notes; an adapter is merged into the model."""
    with enforce_bounds(bounds_of(base, request.random_weights), base.id):
        if adapter is None:
            notes = [] if base.gguf is None else [f"weights of {base.gguf} dequantised to fp32 by transformers' reader"]
            return *load_model(base, config, task, request, attention), notes
        expect_peft(adapter)
        labels = adapter.labels() if task.labels else None
        if labels is not None and labels != config.num_labels:
            config.num_labels = labels
        with alone(base) as files:
            model, unused = load_model(files, config, task, request, attention, adapter.sizes)
    model, note = merge(model, adapter)
    return model, unused, [note]


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


def hidden_size(model: Any) -> int | None:
    """The size of a token's vector, if the configuration says it."""
    hidden = getattr(model.config.get_text_config(), "hidden_size", None)
    return hidden if isinstance(hidden, int) else None


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
