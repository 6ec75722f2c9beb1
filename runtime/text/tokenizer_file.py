"""Check a stored `tokenizer.json`, which comes with the artifact and is not trusted. Imports no `tokenizers`.

Each component must be of a known kind and have only the fields of that kind, and lists and strings must be within
bounds, which are several times what real tokenizers need. The checked JSON is written anew, and only this text is
loaded: duplicate names, which readers resolve differently, do not survive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import ManifestDamagedError
from runtime.format.manifest import TOKENIZER_FILE
from runtime.printing import shown
from runtime.text.growth import Growth, InvalidTokenizer, compose, growth_of, utf8_size

MAX_FILE_BYTES = 96 * 2**20
MAX_COMPONENTS = 64  # of one list, including those of nested sequences
MAX_TOKEN_BYTES = 2048  # of a token of the vocabulary, or an added token
MAX_UNKNOWN_BYTES = 256  # of the unknown token, which may replace every word of a text
MAX_AFFIX_BYTES = 64  # of the prefix or suffix of each piece of a word
MAX_WORD_CHARACTERS = 256  # WordPiece's time grows with the third power of a word's length
MAX_ADDED_TOKENS = 2**17
MAX_TEMPLATE, MAX_SPECIAL_IDS = 64, 16  # pieces of a template, ids of one special token in it
MAX_PATTERN = 8192  # characters of a regular expression
MAX_DECODED_GROWTH = 64

_BYTE_LEVEL = frozenset({"add_prefix_space", "trim_offsets", "use_regex"})
_METASPACE = frozenset({"replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"})
_NONE = frozenset[str]()
# Part → kind → its fields. No other fields may be present: the package guesses the kind of some components from them.
KINDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "normalizer": {
        "BertNormalizer": frozenset({"clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}),
        "Strip": frozenset({"strip_left", "strip_right"}),
        "Sequence": frozenset({"normalizers"}),
        "Precompiled": frozenset({"precompiled_charsmap"}),
        "Replace": frozenset({"pattern", "content"}),
        "Prepend": frozenset({"prepend"}),
        **dict.fromkeys(("StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "ByteLevel"), _NONE),
    },
    "pre_tokenizer": {
        "ByteLevel": _BYTE_LEVEL,
        "Metaspace": _METASPACE,
        "Sequence": frozenset({"pretokenizers"}),
        "Split": frozenset({"pattern", "behavior", "invert"}),
        "Punctuation": frozenset({"behavior"}),
        "Digits": frozenset({"individual_digits"}),
        "FixedLength": frozenset({"length"}),
        **dict.fromkeys(("CharDelimiterSplit", "Delimiter"), frozenset({"delimiter"})),
        **dict.fromkeys(("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"), _NONE),
    },
    "post_processor": {
        "RobertaProcessing": frozenset({"sep", "cls", "trim_offsets", "add_prefix_space"}),
        "BertProcessing": frozenset({"sep", "cls"}),
        "ByteLevel": _BYTE_LEVEL,
        "TemplateProcessing": frozenset({"single", "pair", "special_tokens"}),
        "Sequence": frozenset({"processors"}),
    },
    "decoder": {
        "BPEDecoder": frozenset({"suffix"}),
        "ByteLevel": _BYTE_LEVEL,
        "WordPiece": frozenset({"prefix", "cleanup"}),
        "Metaspace": _METASPACE,
        "CTC": frozenset({"pad_token", "word_delimiter_token", "cleanup"}),
        "Sequence": frozenset({"decoders"}),
        "Replace": frozenset({"pattern", "content"}),
        "Strip": frozenset({"content", "start", "stop"}),
        **dict.fromkeys(("Fuse", "ByteFallback"), _NONE),
    },
    "model": {
        "BPE": frozenset(
            {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback"}
            | {"ignore_merges", "vocab", "merges"}
        ),
        "WordPiece": frozenset({"unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}),
        "WordLevel": frozenset({"unk_token", "vocab"}),
        "Unigram": frozenset({"unk_id", "vocab", "byte_fallback"}),
    },
}
_FIELDS = {"version", "truncation", "padding", "added_tokens", *KINDS}


@dataclass(frozen=True)
class TokenizerFile:
    """A checked `tokenizer.json`: its text, the normaliser's steps with the growth of each, the growth by splitting."""

    text: str
    normalizers: tuple[tuple[Mapping[str, Any], Growth], ...]
    splitting: Growth


def read_tokenizer(content: bytes) -> TokenizerFile:
    """Check the file.

    Raises:
        ManifestDamagedError: it is not JSON, or holds something that no real tokenizer has.
    """
    remedy = "export the model again; if it is a newer kind of tokenizer, update this package first"
    try:
        if len(content) > MAX_FILE_BYTES:
            raise InvalidTokenizer(f"{len(content)} bytes, more than {MAX_FILE_BYTES}")
        stored = json.loads(content.decode("utf-8"))
        steps, splitting = _check(stored)
    # RecursionError: thousands of nested brackets.
    except (ValueError, RecursionError) as error:
        raise ManifestDamagedError(f"damaged {TOKENIZER_FILE}: {error}", "", remedy) from error
    return TokenizerFile(json.dumps(stored), tuple(steps), splitting)


def _check(stored: Any) -> tuple[list[tuple[dict[str, Any], Growth]], Growth]:
    if not isinstance(stored, dict) or (unknown := set(stored) - _FIELDS):
        raise InvalidTokenizer(
            "it is not an object" if not isinstance(stored, dict) else f"unknown {sorted(unknown)[0]!r}"
        )
    parts = {part: list(_components(part, stored.get(part))) for part in KINDS}
    if len(parts["model"]) != 1:
        raise InvalidTokenizer("it has no model")
    _check_model(parts["model"][0])
    for processor in parts["post_processor"]:
        _check_template(processor)
    decoding = compose([growth_of(one) for one in parts["decoder"]])
    if decoding.factor > MAX_DECODED_GROWTH or decoding.extra > MAX_TOKEN_BYTES:
        raise InvalidTokenizer(f"its decoder makes of a token up to {decoding.factor} times as much")
    steps = [(one, growth_of(one)) for one in parts["normalizer"]]
    normalizing = compose([growth for _, growth in steps])
    _check_added(stored.get("added_tokens"), normalizing)
    return steps, compose([growth_of(one) for one in parts["pre_tokenizer"]])


def _components(part: str, value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """A component, or the components of a sequence, in order, each checked to be of a known kind."""
    if value is None:
        return
    kind = value.get("type") if isinstance(value, dict) else None
    fields = KINDS[part].get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise InvalidTokenizer(f"{part} is of the kind {shown(kind)}, not one of {', '.join(KINDS[part])}")
    if unknown := set(value) - fields - {"type"}:
        raise InvalidTokenizer(f"{part} {kind} has the unknown field {shown(min(unknown))}")
    if kind != "Sequence":
        _check_strings(part, value)
        yield value
        return
    (several,) = fields
    members = value.get(several)
    if not isinstance(members, list) or len(members) > MAX_COMPONENTS or depth == 8:
        raise InvalidTokenizer(f"{part} is not a list of at most {MAX_COMPONENTS} components, nested at most 8 times")
    count = 0
    for member in members:
        for one in _components(part, member, depth + 1):
            count += 1
            if count > MAX_COMPONENTS:
                raise InvalidTokenizer(f"{part} has more than {MAX_COMPONENTS} components")
            yield one


def _check_strings(part: str, component: Mapping[str, Any]) -> None:
    pattern = component.get("pattern")
    if "pattern" in KINDS[part][component["type"]] and not (
        isinstance(pattern, dict)
        and len(pattern) == 1
        and set(pattern) <= {"String", "Regex"}
        and all(isinstance(text, str) and len(text) <= MAX_PATTERN for text in pattern.values())
    ):
        raise InvalidTokenizer(f"{part} {component['type']} has no pattern of at most {MAX_PATTERN} characters")
    for name in ("content", "prepend", "replacement", "pad_token", "word_delimiter_token", "prefix", "suffix"):
        if name in component and utf8_size(component[name], name) > MAX_TOKEN_BYTES:
            raise InvalidTokenizer(f"{part} {component['type']}: {name} has more than {MAX_TOKEN_BYTES} bytes")


def _check_model(model: Mapping[str, Any]) -> None:
    vocabulary = model.get("vocab")
    tokens: Any = vocabulary
    if isinstance(vocabulary, list):
        tokens = [entry[0] if isinstance(entry, list) and entry else None for entry in vocabulary]
    elif not isinstance(vocabulary, dict):
        raise InvalidTokenizer("its model has no vocabulary")
    if any(not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES for token in tokens):
        raise InvalidTokenizer(
            f"its vocabulary holds something that is not a token of at most {MAX_TOKEN_BYTES} characters"
        )
    for name, most in (
        ("unk_token", MAX_UNKNOWN_BYTES),
        ("continuing_subword_prefix", MAX_AFFIX_BYTES),
        ("end_of_word_suffix", MAX_AFFIX_BYTES),
    ):
        if model.get(name) is not None and utf8_size(model[name], name) > most:
            raise InvalidTokenizer(f"its model's {name} has more than {most} bytes")
    longest = model.get("max_input_chars_per_word", 0)
    if not isinstance(longest, int) or longest > MAX_WORD_CHARACTERS:
        raise InvalidTokenizer(f"its model's words have {shown(longest)} characters, more than {MAX_WORD_CHARACTERS}")
    number = model.get("unk_id")
    if isinstance(number, int) and 0 <= number < len(tokens) and len(tokens[number]) > MAX_UNKNOWN_BYTES:
        raise InvalidTokenizer(f"its unknown token has more than {MAX_UNKNOWN_BYTES} characters")


def _check_template(template: Mapping[str, Any]) -> None:
    """Check that each form of a template contains the text at most once, and a limited number of other tokens."""
    for side in ("single", "pair"):
        pieces = template.get(side, [])
        if not isinstance(pieces, list) or len(pieces) > MAX_TEMPLATE:
            raise InvalidTokenizer(f"its template's {side} is not a list of at most {MAX_TEMPLATE} pieces")
        texts = [str(piece["Sequence"]) for piece in pieces if isinstance(piece, dict) and "Sequence" in piece]
        names = {text for text in ("A", "B") for one in texts if f"'{text}'" in one}
        if len(texts) != len(names):
            raise InvalidTokenizer("its template repeats the text")
    special = template.get("special_tokens", {})
    lists = (
        [token.get("ids") for token in special.values() if isinstance(token, dict)] if isinstance(special, dict) else []
    )
    if any(not isinstance(ids, list) or len(ids) > MAX_SPECIAL_IDS for ids in lists):
        raise InvalidTokenizer(f"a special token of its template is not a list of at most {MAX_SPECIAL_IDS} ids")


def _check_added(tokens: Any, normalizing: Growth) -> None:
    if tokens is None:
        return
    if not isinstance(tokens, list) or len(tokens) > MAX_ADDED_TOKENS:
        raise InvalidTokenizer(f"its added tokens are not a list of at most {MAX_ADDED_TOKENS}")
    normalized = 0
    for token in tokens:
        length = utf8_size(token.get("content") if isinstance(token, dict) else None, "an added token")
        if length > MAX_TOKEN_BYTES:
            raise InvalidTokenizer(f"an added token has more than {MAX_TOKEN_BYTES} bytes")
        # The package normalises these when it loads the file.
        normalized += normalizing.bound(length) if token.get("normalized", True) else length
    if normalized > MAX_FILE_BYTES:
        raise InvalidTokenizer("its added tokens grow beyond measure when normalised")
