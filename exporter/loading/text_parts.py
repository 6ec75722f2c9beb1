"""Read what a model folder has for texts: tokenizer, padding, chat template, and what of the head depends on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from exporter.config.request import ExportRequest
from exporter.config.tasks import Task
from exporter.loading.hub import ModelFiles
from exporter.loading.late_interaction import read_late_interaction
from exporter.loading.m3_heads import add_heads
from exporter.loading.model_folder import Folder
from exporter.loading.padding_side import choose_side
from exporter.loading.padding_token import complete_padding
from exporter.loading.pair_template import read_pair_template
from exporter.loading.pooling import Head, SentenceHead
from exporter.loading.sentence_modules import Modules
from exporter.loading.text_settings import ChatSettings, TextSettings
from exporter.loading.token_scores import read_token_ids, score_tokens
from exporter.loading.tokenizer import TokenizerPart, has_tokenizer, load_tokenizer
from exporter.loading.towers import TextPadding, pad_texts, takes_texts
from runtime.format.manifest import LateInteraction


@dataclass(frozen=True)
class TextParts:
    """What the folder has for texts; `head` is what follows the model, with what its files add to it."""

    tokenizer: TokenizerPart
    padding: TextPadding | None
    head: Head | None
    late_interaction: LateInteraction | None
    notes: tuple[str, ...]


def read_text_parts(
    folder: Folder, model: Any, head: Head | None, longest: int | None, vocabulary: int, request: ExportRequest
) -> TextParts:
    """The tokenizer, how it pads, and what of the head depends on it."""
    files, task, settings, modules, texts = folder.files, folder.task, folder.settings, folder.modules, folder.texts
    pad_id = getattr(model.config.get_text_config(), "pad_token_id", None) if task.classifies_texts else None
    notes: list[str] = []
    if takes_texts(task):
        place = files if has_tokenizer(files) else folder.base
        tokenizer = load_tokenizer(place, request, longest, vocabulary, texts, pad_id)
    else:
        tokenizer = TokenizerPart(None, None, (), f"no tokenizer ({task.name} takes no texts)")
    tokenizer, padding = pad_texts(files.id, folder.config, task, longest, tokenizer, modules is not None)
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
        late = None if late is None else replace(late, prompts=texts.prompts)
    return TextParts(tokenizer, padding, head, late, tuple(notes))


def complete_classifier(
    folder: Folder, model: Any, tokenizer: TokenizerPart, vocabulary: int
) -> tuple[TokenizerPart, list[str]]:
    """The tokenizer with the side on which a text classifier has its padding, and notes; as it is for other tasks."""
    if not folder.task.classifies_texts:
        return tokenizer, []
    notes = complete_padding(folder.files.id, model.config, tokenizer)
    tokenizer, side = choose_side(model, tokenizer, vocabulary)
    return tokenizer, [*notes, *side]


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


def hidden_size(model: Any) -> int | None:
    """The size of a token's vector, if the configuration says it."""
    hidden = getattr(model.config.get_text_config(), "hidden_size", None)
    return hidden if isinstance(hidden, int) else None
