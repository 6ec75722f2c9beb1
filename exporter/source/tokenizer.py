"""Take the model's tokenizer along, in the form that the `tokenizers` package reads.

In: location, configuration, the longest length. Out: the content of `tokenizer.json` with a `TextInfo`, or
the reason why there is none. Refuses a tokenizer that is there but damaged or empty; a model without one takes
tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from exporter.request import ExportRequest
from exporter.source.hub import Location, has_file, read_json, translated
from runtime.errors import CheckpointError
from runtime.manifest import TextInfo, TextRules

# Files of which at least one is there when a model has a tokenizer.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


@dataclass(frozen=True)
class TokenizerPart:
    """The tokenizer and how to use it, or (`content` None) why there is none.

    `special_ids` are ids with a meaning of their own; examples avoid them. `fast` is the tokenizer itself.
    """

    content: bytes | None
    info: TextInfo | None
    special_ids: tuple[int, ...]
    note: str
    fast: Any = None


def _python_only(name: Any) -> bool:
    """Whether transformers has the tokenizer of this name as Python code alone."""
    if not isinstance(name, str):
        return False
    kinds = [tokenizer_class_from_name(name), tokenizer_class_from_name(f"{name.removesuffix('Fast')}Fast")]
    known = [kind for kind in kinds if isinstance(kind, type)]
    return bool(known) and not any(issubclass(kind, PreTrainedTokenizerFast) for kind in known)


def load_tokenizer(
    location: Location, request: ExportRequest, longest: int | None, vocabulary: int, pooled: bool
) -> TokenizerPart:
    """Load it.

    Args:
        location: where the model is.
        request: what the user allows.
        longest: the number of tokens that the model's positions admit.
        vocabulary: the number of rows of the model's token table.
        pooled: whether it is a sentence-transformers folder, which may set a length of its own.

    Raises:
        CheckpointError: it is there, and damaged, empty, or of an impossible length.
    """
    if request.random_weights and location.folder is None:
        return TokenizerPart(None, None, (), "no tokenizer (random weights)")
    if not any(has_file(location, name) for name in _FILES):
        return TokenizerPart(None, None, (), "no tokenizer with the model")
    said = read_json(location, "tokenizer_config.json")
    if (
        isinstance(said, dict)
        and not has_file(location, "tokenizer.json")
        and _python_only(said.get("tokenizer_class"))
    ):
        # Not even loaded: it may want packages (pandas, for TAPAS) for what no artifact can take along.
        return TokenizerPart(None, None, (), f"no tokenizer ({said['tokenizer_class']} has no tokenizer.json form)")
    remedy = "mend it, or export from a folder without tokenizer files"
    try:
        with translated(location):
            tokenizer: Any = AutoTokenizer.from_pretrained(
                location.reference, trust_remote_code=request.trust_remote_code, **location.options
            )
    except CheckpointError as error:
        raise CheckpointError(f"the tokenizer of {location.id} cannot be loaded ({error})", "", remedy) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers makes a tokenizer without a vocabulary file too: every word is then unknown to it.
        raise CheckpointError(
            f"the tokenizer of {location.id} has no vocabulary", "tokenizer.json or a vocabulary", remedy
        )
    if not getattr(tokenizer, "is_fast", False):
        return TokenizerPart(None, None, (), f"no tokenizer ({type(tokenizer).__name__} has no tokenizer.json form)")
    lengths = {"model_max_length": tokenizer.model_max_length, "max_position_embeddings": longest}
    settings = (read_json(location, "sentence_bert_config.json") or {}) if pooled else {}
    if pooled:
        lengths["max_seq_length"] = settings.get("max_seq_length") if isinstance(settings, dict) else settings
    least = tokenizer.num_special_tokens_to_add() + 1
    for name, length in lengths.items():
        if length is not None and (not isinstance(length, (int, float)) or length < least or length != int(length)):
            raise CheckpointError(
                f"{name} of {location.id} is {length!r}", f"a number of tokens, at least {least}", remedy
            )
    # Tokenizers without a length of their own carry a number of thirty digits.
    known = [int(length) for length in lengths.values() if length is not None and length < 10**9]
    # A tokenizer without a padding token (decoders): any id does, since the mask hides it.
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    info = TextInfo(
        max_length=min(known) if known else 512,
        pad_id=pad_id,
        pad_token=str(tokenizer.convert_ids_to_tokens(pad_id)),
        pad_type_id=getattr(tokenizer, "pad_token_type_id", 0),
        padding_side=tokenizer.padding_side,
        rules=_rules(tokenizer, default_prompt(location) if pooled else ""),
    )
    content = tokenizer.backend_tokenizer.to_str().encode()
    if pooled and settings.get("do_lower_case") is True:
        content = _lowercased(content)
    note = f"tokenizer, at most {info.max_length} tokens"
    if (largest := max(tokenizer.get_vocab().values())) >= vocabulary:
        note += f"; it knows ids up to {largest}, the model only {vocabulary}: texts that need the others are refused"
    return TokenizerPart(content, info, tuple(tokenizer.all_special_ids), note, tokenizer)


def default_prompt(location: Location) -> str:
    """What a sentence-transformers model puts before every text; mostly nothing.

    Raises:
        CheckpointError: the folder names a prompt that it does not hold.
    """
    settings = read_json(location, "config_sentence_transformers.json")
    if not isinstance(settings, dict) or (name := settings.get("default_prompt_name")) is None:
        return ""
    prompts = settings.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, Mapping) else None
    # The manifest holds no control characters.
    if not isinstance(prompt, str) or not (prompt == "" or prompt.isprintable()):
        raise CheckpointError(
            f"config_sentence_transformers.json of {location.id}: the default prompt {name!r} is {prompt!r}"[:200],
            "one of its prompts, of printable characters",
            "take default_prompt_name out, and put the prompt before your texts yourself",
        )
    return prompt


def _rules(tokenizer: Any, prompt: str) -> TextRules:
    named = tokenizer.special_tokens_map

    def number(role: str) -> int | None:
        return None if named.get(role) is None else int(tokenizer.convert_tokens_to_ids(str(named[role])))

    # transformers 5 never cleans up after BPE unless told so by this attribute, which 4 does not have.
    exempt = (
        type(tokenizer.backend_tokenizer.model).__name__ == "BPE"
        and getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", None) is False
    )
    return TextRules(
        unknown_id=number("unk_token"),
        class_id=number("cls_token"),
        mask_id=number("mask_token"),
        mask_token=None if named.get("mask_token") is None else str(named["mask_token"]),
        truncation_side=tokenizer.truncation_side,
        token_types="token_type_ids" in tokenizer.model_input_names,
        clean_up_spaces=bool(tokenizer.clean_up_tokenization_spaces) and not exempt,
        prompt=prompt,
    )


def _lowercased(content: bytes) -> bytes:
    """The tokenizer with lower case put before all else, as sentence-transformers does for `do_lower_case`."""
    tokenizer = json.loads(content)
    known = tokenizer.get("normalizer")
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Lowercase"}, *([known] if known is not None else [])],
    }
    return json.dumps(tokenizer, ensure_ascii=False).encode()
