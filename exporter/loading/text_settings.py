"""The text settings of a sentence-transformers folder: maximum length, lower case, prompts, similarity.

What changes how texts become tokens and is not supported is refused: chat templates, a tokenizer from elsewhere,
arguments of the tokenizer or the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

from exporter.loading import known_settings, pylate_settings
from exporter.loading.hub import ModelFiles
from exporter.loading.sentence_modules import Modules
from exporter.loading.settings import Settings
from runtime.errors import CheckpointError
from runtime.format.manifest import Similarity

# In the order in which the library looks for one that is not empty.
FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Prompts that every SentenceTransformer has; empty unless the folder sets them.
_COMMON_PROMPTS = ("query", "document")
# Model type, or the module that makes it another one →
# the task of its transformer, the model output that it uses, and its own name for that output.
_HEADS = {
    "SentenceTransformer": ("feature-extraction", "last_hidden_state", "token_embeddings"),
    "CrossEncoder": ("sequence-classification", "logits", "scores"),
    "LogitScore": ("text-generation", "logits", "causal_logits"),
    "SparseEncoder": ("fill-mask", "logits", "token_embeddings"),
    "MultiVectorEncoder": ("feature-extraction", "last_hidden_state", "token_embeddings"),
}
# The same for a model with towers.
_TOWERS = ("feature-extraction", "pooler_output", "sentence_embedding")


@dataclass(frozen=True)
class TextSettings:
    """How a text is prepared for the tokenizer, and how many of its tokens are kept.

    `max_length` replaces the tokenizer's own limit; None if the folder sets none. `prompt` is the default one of
    `prompts`. `truncate_dim` is how many numbers of a vector are kept; None: all. `similarity` compares two vectors.
    `activation` is the activation of a cross encoder's scores, if the folder names one.
    `sides` are the settings of queries and documents, for a model of token vectors. `chat` is how pairs go through the
    chat template; None: they do not. `markers` are prefixes that the tokenizer may have as tokens.
    """

    max_length: int | None = None
    lower_case: bool = False
    prompt: str = ""
    prompts: dict[str, str] = field(default_factory=dict)
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None
    activation: str | None = None
    sides: SideSettings | None = None
    chat: ChatSettings | None = None
    markers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatSettings:
    """How a cross encoder's pairs go through the tokenizer's chat template.

    `form` is that of a message's content, text (`flat`) or a list of parts (`structured`); None: the one that the
    template takes. `arguments` are the template's. `restores` is whether a text that is cut keeps the template's end.
    `prompt` becomes a message of the system. `required` is false if pairs whose template has no place for them are
    given to the tokenizer as they are.
    """

    form: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    restores: bool = True
    prompt: str = ""
    required: bool = True


@dataclass(frozen=True)
class SideSettings:
    """What a model of token vectors does to queries and documents, as the folder says it.

    Lengths are in tokens, None for the usual one. `expansion` are the library's settings of tokens to add to queries.
    `skipped_words` are tokens that are left out of documents; None: as the module for it says.
    """

    query_prompt: str
    document_prompt: str
    query_length: int | None
    document_length: int | None
    expansion: dict[str, Any] | None
    skipped_words: list[Any] | None = None


def read_texts(settings: Settings, transformer_files: ModelFiles, modules: Modules) -> TextSettings:
    """The folder's settings for texts.

    Args:
        settings: of the whole folder.
        transformer_files: where the transformer's own files are.
        modules: supported ones.

    Raises:
        CheckpointError: a setting that is not supported or not possible.
    """
    table = known_settings.PYLATE if modules.pylate else known_settings.MODEL
    model = settings.read("config_sentence_transformers.json", table) or {}
    markers: tuple[str, ...] = ()
    if modules.pylate:
        model, markers = pylate_settings.with_prefixes(settings, model)
    truncate = model.get("truncate_dim")
    if truncate is not None and (type(truncate) is not int or truncate < 1):
        raise CheckpointError(f"truncate_dim of {settings.files.id} is {truncate!r}"[:200], "a number from 1 on")
    prompts = _prompts(settings, model)
    name, found = _transformer(settings, transformer_files)
    chat = _chat(settings, name, found, modules)
    prompt = _default_prompt(settings, model, prompts, modules.model_type == "CrossEncoder" and chat is None)
    if chat is not None:
        chat, prompt = replace(chat, prompt=prompt), ""
    _check_head(settings, name, found, modules)
    lengths = [
        settings.check(f"{name}: {key}", found.get(key) or {}, known_settings.TOKENIZER_ARGUMENTS).get(
            "model_max_length"
        )
        for key in ("tokenizer_args", "processor_kwargs")
    ]
    for key in ("model_args", "model_kwargs", "config_args", "config_kwargs"):
        settings.check(f"{name}: {key}", found.get(key) or {}, known_settings.MODEL_ARGUMENTS)
    lower_case = found.get("do_lower_case", False)
    if not isinstance(lower_case, bool):
        raise settings.refusal(name, "do_lower_case", lower_case, "it is neither true nor false")
    return TextSettings(
        # An argument of the tokenizer has precedence over the setting.
        max_length=next((length for length in (*lengths, found.get("max_seq_length")) if length is not None), None),
        lower_case=lower_case,
        prompt=prompt,
        prompts=prompts,
        similarity=_similarity(settings, model, modules.model_type),
        truncate_dim=truncate,
        activation=model.get("activation_fn"),
        sides=_sides(settings, model, name, found, modules),
        chat=chat,
        markers=markers,
    )


def _chat(settings: Settings, name: str, found: dict[str, Any], modules: Modules) -> ChatSettings | None:
    """How pairs go through the chat template; None if texts do not."""
    processing = settings.check(
        f"{name}: processing_kwargs", found.get("processing_kwargs") or {}, known_settings.PROCESSING
    )
    arguments = processing.get("chat_template") or {}
    config = found.get("modality_config")
    message = config.get("message") if isinstance(config, dict) and modules.model_type == "CrossEncoder" else None
    if not isinstance(message, dict):
        # Without that kind of input the library makes no use of the template.
        return None
    form = message.get("format", "auto")
    if form not in ("auto", "flat", "structured"):
        raise settings.refusal(name, "modality_config", message, "known formats are auto, flat, structured")
    sizes = {"padding", "truncation", "max_length", "return_tensors"}
    if not isinstance(arguments, dict) or sizes & set(arguments):
        raise settings.refusal(name, "processing_kwargs", arguments, "it changes how texts are tokenised")
    rest = {key: value for key, value in arguments.items() if key != "restore_suffix"}
    return ChatSettings(None if form == "auto" else form, rest, bool(arguments.get("restore_suffix", True)))


def _sides(
    settings: Settings, model: dict[str, Any], name: str, found: dict[str, Any], modules: Modules
) -> SideSettings | None:
    """The settings of queries and documents; refused for a model that does not tell them apart."""
    if modules.model_type != "MultiVectorEncoder":
        for key in ("query_length", "document_length", "query_expansion"):
            if found.get(key) is not None:
                raise settings.refusal(name, key, found[key], "queries and documents get the same treatment here")
        return None
    if modules.pylate:
        # What the transformer's own file says has precedence.
        found = pylate_settings.lengths(model) | found
    for key in ("query_length", "document_length"):
        length = found.get(key)
        if length is not None and (type(length) is not int or length < 1):
            raise settings.refusal(name, key, length, "it is not a number of tokens")
    expansion = found.get("query_expansion")
    if expansion is not None:
        expansion = settings.check(f"{name}: query_expansion", expansion, known_settings.QUERY_EXPANSION)
        expansion = {"attend": False, "token": None} | expansion
        length, least = expansion.get("length"), found.get("query_length")
        known = expansion.get("strategy") in ("fixed", "min") and isinstance(expansion["attend"], bool)
        if not known or type(length) is not int or length < 1 or (least is not None and least < length):
            raise settings.refusal(name, "query_expansion", expansion, "it has no strategy and length that fit")
    prompts = model.get("prompts", {})
    query, document = (prompts.get(side) or "" for side in ("query", "document"))
    words = pylate_settings.left_out(model) if modules.pylate else None
    return SideSettings(query, document, found.get("query_length"), found.get("document_length"), expansion, words)


def _transformer(settings: Settings, transformer_files: ModelFiles) -> tuple[str, dict[str, Any]]:
    """The name of the first settings file that is not empty, in the library's order, and its values that are used."""
    for name in FILES:
        content = transformer_files.read_json(name)
        if content is not None and content != {}:
            return name, settings.check(name, content, known_settings.TRANSFORMER)
    return FILES[0], {}


def _prompts(settings: Settings, model: dict[str, Any]) -> dict[str, str]:
    """The prompts by name, those that the library adds before the folder's own."""
    prompts = model.get("prompts", {})
    if not isinstance(prompts, dict) or not all(
        _is_text(name) and (text is None or _is_text(text)) for name, text in prompts.items()
    ):
        raise CheckpointError(
            f"config_sentence_transformers.json of {settings.files.id}: prompts is {prompts!r}"[:200],
            "texts by name",
            "correct the file",
        )
    return dict.fromkeys(_COMMON_PROMPTS, "") | {name: text or "" for name, text in prompts.items()}


def _is_text(value: Any) -> bool:
    """Whether the value is a string that UTF-8 can hold, unlike the half of a surrogate pair."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value


def _similarity(settings: Settings, model: dict[str, Any], model_type: str) -> Similarity:
    name = model.get("similarity_fn_name")
    if name is None or model_type not in ("SentenceTransformer", "SparseEncoder"):
        return "dot" if model_type == "SparseEncoder" else "cosine"
    known: Similarity | None = next((one for one in get_args(Similarity) if one == name), None)
    if known is None:
        raise settings.refusal(
            "config_sentence_transformers.json",
            "similarity_fn_name",
            name,
            f"vectors of texts are compared by {', '.join(get_args(Similarity))}",
        )
    return known


def _default_prompt(settings: Settings, model: dict[str, Any], prompts: dict[str, str], pairs: bool) -> str:
    """The text that is put before every text, which must not be a pair; usually empty."""
    name = model.get("default_prompt_name")
    if name is None:
        return ""
    if pairs:
        raise settings.refusal(
            "config_sentence_transformers.json",
            "default_prompt_name",
            name,
            "a prompt before a pair of texts is not supported",
        )
    if not isinstance(name, str) or name not in prompts:
        raise CheckpointError(
            f"config_sentence_transformers.json of {settings.files.id}: default_prompt_name is {name!r}"[:200],
            f"one of its prompts: {', '.join(prompts)}",
            "give --ignore-setting default_prompt_name to export without a default prompt",
        )
    return prompts[name]


def _check_head(settings: Settings, name: str, found: dict[str, Any], modules: Modules) -> None:
    """Check that texts go to the transformer unchanged, and its vectors or scores to the next module unchanged."""
    task, output, own = (
        _TOWERS if modules.towers else _HEADS["LogitScore" if modules.scores_tokens else modules.model_type]
    )
    usual = "fill-mask" if modules.listed[0].kind == "MLMTransformer" else "feature-extraction"
    set_task = found.get("transformer_task", usual)
    if set_task != task:
        raise settings.refusal(name, "transformer_task", set_task, f"a {modules.model_type} is one of {task}")
    config = found.get("modality_config")
    if config is None:
        return
    text = config.get("text") if isinstance(config, dict) else None
    message = config.get("message") if isinstance(config, dict) else None
    pairs = modules.model_type == "CrossEncoder" and isinstance(message, dict)
    if not isinstance(config, dict) or not isinstance(text, dict) or (message is not None and not pairs):
        raise settings.refusal(
            name, "modality_config", config, "texts go through a chat template, or are not supported"
        )
    used = {"text": "get_text_features", "image": "get_image_features"} if modules.towers else {"text": "forward"}
    if message is not None:
        used["message"] = "forward"
    for modality, method in used.items():
        way = config.get(modality)
        known = isinstance(way, dict) and way.get("method_output_name") in (output, [output])
        if not isinstance(way, dict) or not known or way.get("method") != method:
            raise settings.refusal(
                name, "modality_config", config, f"the result for {modality}s must be {output} of {method}"
            )
    if found.get("module_output_name", own) != own:
        raise settings.refusal(name, "module_output_name", found["module_output_name"], f"expected {own}")
