"""Take the model's tokenizer along, in the form that the `tokenizers` package reads.

In: location, configuration, the longest length. Out: the content of `tokenizer.json` with a `TextInfo`, or
the reason why there is none. Refuses a tokenizer that is there but damaged or empty; a model without one takes
tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from exporter.request import ExportRequest
from exporter.source.hub import Location, has_file, read_json, translated
from runtime.errors import CheckpointError
from runtime.manifest import TextInfo

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

    `special_ids` are ids with a meaning of their own; examples avoid them.
    """

    content: bytes | None
    info: TextInfo | None
    special_ids: tuple[int, ...]
    note: str


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
    if pooled:
        settings = read_json(location, "sentence_bert_config.json") or {}
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
    )
    content = tokenizer.backend_tokenizer.to_str().encode()
    note = f"tokenizer, at most {info.max_length} tokens"
    if (largest := max(tokenizer.get_vocab().values())) >= vocabulary:
        note += f"; it knows ids up to {largest}, the model only {vocabulary}: texts that need the others are refused"
    return TokenizerPart(content, info, tuple(tokenizer.all_special_ids), note)
