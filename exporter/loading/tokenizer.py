"""Read the model's tokenizer into the form that the file carries: `tokenizer.json` and the settings to use it with.

A model without a tokenizer, or with one that exists as Python code alone, is exported without: it takes tensors. A
tokenizer that is damaged or empty is refused.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from exporter.config.forward_parameters import TRIES
from exporter.config.request import ExportRequest
from exporter.loading import pylate_settings
from exporter.loading.hub import ModelFiles
from exporter.loading.text_settings import TextSettings
from exporter.loading.tokenizer_probe import expect_same_tokens
from runtime.errors import CheckpointError
from runtime.format.manifest import TextInfo, TextRules

# A model with a tokenizer has at least one of these files.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_REMEDY = "mend it, or export from a folder without tokenizer files"
# Lengths from here on mean "no limit".
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class TokenizerPart:
    """The tokenizer and how to use it; or, with `content` None, a note that says why there is none.

    `special_ids` are ids with a special meaning, which example inputs avoid. `fast` is the tokenizer itself.
    `gives_mask`: it makes an attention_mask too.
    """

    content: bytes | None
    info: TextInfo | None
    special_ids: tuple[int, ...]
    note: str
    fast: Any = None
    gives_mask: bool = False

    def padded_to(self, length: int) -> TokenizerPart:
        """The same, for texts that are all padded to this length."""
        if self.info is None or self.info.rules is None:
            return self
        rules = dataclasses.replace(self.info.rules, padded_length=length)
        return dataclasses.replace(self, info=dataclasses.replace(self.info, rules=rules))


def load_tokenizer(
    files: ModelFiles,
    request: ExportRequest,
    longest: int | None,
    vocabulary: int,
    texts: TextSettings,
    pad_id: int | None = None,
) -> TokenizerPart:
    """Load the tokenizer and check that the file's copy makes the same tokens.

    Args:
        files: the model's.
        request: what the user allows.
        longest: the number of tokens that the model's positions admit.
        vocabulary: the number of rows of the model's token table.
        texts: the text settings of a sentence-transformers folder.
        pad_id: the id that the model treats as padding, if it looks at the ids; None: what the tokenizer pads with.

    Raises:
        CheckpointError: the tokenizer is damaged or empty, or its maximum length is impossible.
    """
    if request.random_weights and files.folder is None:
        return TokenizerPart(None, None, (), "no tokenizer (random weights)")
    if not has_tokenizer(files):
        return TokenizerPart(None, None, (), "no tokenizer with the model")
    if files.gguf is not None and _has_files(files):
        # Files of the tokenizer itself come before what GGUF keeps of it.
        files = dataclasses.replace(files, options={})
    tokenizer_class = _python_only_class(files)
    if tokenizer_class is None:
        tokenizer = _load(files, request)
        if not getattr(tokenizer, "is_fast", False):
            tokenizer_class = type(tokenizer).__name__
    if tokenizer_class is not None:
        return TokenizerPart(None, None, (), f"no tokenizer ({tokenizer_class} has no tokenizer.json form)")
    pylate_settings.register(tokenizer, texts.markers)
    info = _text_info(files, tokenizer, longest, vocabulary, texts, pad_id, request.max_length)
    content = tokenizer.backend_tokenizer.to_str().encode()
    expect_same_tokens(files.id, tokenizer, content, info)
    if texts.lower_case:
        content = _lowercased(content)
    note = f"tokenizer, at most {info.max_length} tokens"
    if (largest := max(tokenizer.get_vocab().values())) >= vocabulary:
        note += f"; it knows ids up to {largest}, the model only {vocabulary}: texts that need the others are refused"
    masks = "attention_mask" in tokenizer.model_input_names
    return TokenizerPart(content, info, tuple(tokenizer.all_special_ids), note, tokenizer, masks)


def has_tokenizer(files: ModelFiles) -> bool:
    """Whether there are files of a tokenizer."""
    return files.gguf is not None or _has_files(files)


def _has_files(files: ModelFiles) -> bool:
    return any(files.has(name) for name in _FILES)


def _python_only_class(files: ModelFiles) -> str | None:
    """The tokenizer class that the folder names, if transformers has it as Python code alone; else None.

    Such a tokenizer is not even loaded: it may want packages (pandas, for TAPAS) for what no artifact can carry.
    """
    config = files.read_json("tokenizer_config.json")
    name = config.get("tokenizer_class") if isinstance(config, dict) else None
    if not isinstance(name, str) or files.has("tokenizer.json"):
        return None
    found = [tokenizer_class_from_name(name), tokenizer_class_from_name(f"{name.removesuffix('Fast')}Fast")]
    known = [one for one in found if isinstance(one, type)]
    fast = any(issubclass(one, PreTrainedTokenizerFast) for one in known)
    return name if known and not fast else None


def _load(files: ModelFiles, request: ExportRequest) -> Any:
    try:
        tokenizer = files.load(AutoTokenizer, trust_remote_code=request.trust_remote_code)
    except CheckpointError as error:
        raise CheckpointError(f"the tokenizer of {files.id} cannot be loaded ({error})", "", _REMEDY) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers also makes a tokenizer without a vocabulary file: every word is then unknown to it.
        raise CheckpointError(
            f"the tokenizer of {files.id} has no vocabulary", "tokenizer.json or a vocabulary", _REMEDY
        )
    return tokenizer


def _text_info(
    files: ModelFiles,
    tokenizer: Any,
    longest: int | None,
    vocabulary: int,
    texts: TextSettings,
    pad_id: int | None,
    asked: int | None,
) -> TextInfo:
    max_length = _max_length(files, tokenizer, longest, texts, asked)
    if pad_id is None or not 0 <= pad_id < min(vocabulary, len(tokenizer)):
        # For a tokenizer without a padding token (decoders) any id works, since the mask hides it.
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    return TextInfo(
        max_length=max_length,
        pad_id=pad_id,
        pad_token=str(tokenizer.convert_ids_to_tokens(pad_id)),
        pad_type_id=getattr(tokenizer, "pad_token_type_id", 0),
        padding_side=tokenizer.padding_side,
        rules=_rules(tokenizer, texts.prompt),
    )


def _max_length(files: ModelFiles, tokenizer: Any, longest: int | None, texts: TextSettings, asked: int | None) -> int:
    """The longest text in tokens, by the rule of sentence-transformers.

    A limit that the folder sets for its texts replaces the tokenizer's own, even if it is larger. The model's positions
    bound both.
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
                f"{name} of {files.id} is {length!r}"[:200], f"a number of tokens, at least {least}", _REMEDY
            )
    # Tokenizers without a limit carry a number of thirty digits.
    known = [int(length) for length in named.values() if length is not None and length < _NO_LIMIT]
    return min(known, default=asked or TRIES["sequence"].longest or least)


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
    """The tokenizer with lowercasing as its first step, as sentence-transformers does for `do_lower_case`.

    A tokenizer that has that step already stays as it is.
    """
    tokenizer = json.loads(content)
    known = tokenizer.get("normalizer")
    steps = known["normalizers"] if known is not None and known["type"] == "Sequence" else [known] if known else []
    if not any(step["type"] == "Lowercase" for step in steps):
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
    return json.dumps(tokenizer, ensure_ascii=False).encode()
