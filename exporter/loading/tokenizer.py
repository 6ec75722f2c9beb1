"""Take the model's tokenizer along, in the form that the `tokenizers` package reads.

In: location, configuration, the longest length. Out: the content of `tokenizer.json` with a `TextInfo`, or
the reason why there is none. Refuses a tokenizer that is there but damaged or empty; a model without one takes
tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from exporter.config.forward_parameters import TRIES
from exporter.config.request import ExportRequest
from exporter.loading.hub import Location, has_file, read_json, translated
from exporter.loading.text_settings import TextSettings
from exporter.loading.tokenizer_probe import expect_same_tokens
from runtime.errors import CheckpointError
from runtime.format.manifest import TextInfo, TextRules

# Files of which at least one is there when a model has a tokenizer.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_REMEDY = "mend it, or export from a folder without tokenizer files"
# A length from here on means none.
_NO_LIMIT = 10**9


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
    location: Location,
    request: ExportRequest,
    longest: int | None,
    vocabulary: int,
    texts: TextSettings,
    pad_id: int | None = None,
) -> TokenizerPart:
    """Load it.

    Args:
        location: where the model is.
        request: what the user allows.
        longest: the number of tokens that the model's positions admit.
        vocabulary: the number of rows of the model's token table.
        texts: what a sentence-transformers folder says of its texts.
        pad_id: what the model takes for padding, where it looks at the ids; None: what the tokenizer pads with.

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
    try:
        with translated(location):
            tokenizer: Any = AutoTokenizer.from_pretrained(
                location.reference, trust_remote_code=request.trust_remote_code, **location.options
            )
    except CheckpointError as error:
        raise CheckpointError(f"the tokenizer of {location.id} cannot be loaded ({error})", "", _REMEDY) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers makes a tokenizer without a vocabulary file too: every word is then unknown to it.
        raise CheckpointError(
            f"the tokenizer of {location.id} has no vocabulary", "tokenizer.json or a vocabulary", _REMEDY
        )
    if not getattr(tokenizer, "is_fast", False):
        return TokenizerPart(None, None, (), f"no tokenizer ({type(tokenizer).__name__} has no tokenizer.json form)")
    max_length = _limit(location, tokenizer, longest, texts)
    if pad_id is None or not 0 <= pad_id < min(vocabulary, len(tokenizer)):
        # A tokenizer without a padding token (decoders): any id does, since the mask hides it.
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    info = TextInfo(
        max_length=max_length,
        pad_id=pad_id,
        pad_token=str(tokenizer.convert_ids_to_tokens(pad_id)),
        pad_type_id=getattr(tokenizer, "pad_token_type_id", 0),
        padding_side=tokenizer.padding_side,
        rules=_rules(tokenizer, texts.prompt),
    )
    content = tokenizer.backend_tokenizer.to_str().encode()
    expect_same_tokens(location.id, tokenizer, content, info)
    if texts.lower_case:
        content = _lowercased(content)
    note = f"tokenizer, at most {info.max_length} tokens"
    if (largest := max(tokenizer.get_vocab().values())) >= vocabulary:
        note += f"; it knows ids up to {largest}, the model only {vocabulary}: texts that need the others are refused"
    return TokenizerPart(content, info, tuple(tokenizer.all_special_ids), note, tokenizer)


def _limit(location: Location, tokenizer: Any, longest: int | None, texts: TextSettings) -> int:
    """The longest text in tokens, by the rule of sentence-transformers.

    What the folder sets for its texts counts instead of the tokenizer's own limit, be it more or less. The model's
    positions bound both.
    """
    named = {
        "max_seq_length" if texts.max_length is not None else "model_max_length": (
            texts.max_length if texts.max_length is not None else tokenizer.model_max_length
        ),
        "max_position_embeddings": longest,
    }
    least = tokenizer.num_special_tokens_to_add() + 1
    for name, length in named.items():
        number = isinstance(length, (int, float)) and not isinstance(length, bool)
        if length is not None and (not number or length < least or length != int(length)):
            raise CheckpointError(
                f"{name} of {location.id} is {length!r}"[:200], f"a number of tokens, at least {least}", _REMEDY
            )
    # Tokenizers without a length of their own carry a number of thirty digits.
    known = [int(length) for length in named.values() if length is not None and length < _NO_LIMIT]
    return min(known, default=TRIES["sequence"].longest or least)


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
    """The tokenizer with lower case put before all else, as sentence-transformers does for `do_lower_case`.

    It does nothing where the tokenizer has that step already.
    """
    tokenizer = json.loads(content)
    known = tokenizer.get("normalizer")
    steps = known["normalizers"] if known is not None and known["type"] == "Sequence" else [known] if known else []
    if not any(step["type"] == "Lowercase" for step in steps):
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
    return json.dumps(tokenizer, ensure_ascii=False).encode()
