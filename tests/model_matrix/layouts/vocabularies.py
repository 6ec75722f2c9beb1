"""Tokenizers of the usual kinds, each with a small vocabulary made of `texts.words` without a trainer.

Each function writes the files that such a folder has on the hub. They are the same every time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from tests.model_matrix.layouts import texts

_FACES = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "mask": "<mask>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>"}
_SPACE = "▁"


@dataclass(frozen=True)
class Written:
    """A tokenizer's files: the size of the vocabulary, and ids by their names in config.json (`pad_token_id`)."""

    size: int
    ids: Mapping[str, int]


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's files say beside its kind.

    Attributes:
        kind: `tokenizer_class`.
        length: `model_max_length`.
        keys: more keys of tokenizer_config.json, in place of the usual ones.
        files: which of the files are published: `tokenizer.json` and the old vocabularies.
    """

    kind: str
    length: float = 512
    keys: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")

    def write(self, folder: Path, tokenizer: Tokenizer, special: Mapping[str, str], old: Mapping[str, str]) -> Written:
        """Write tokenizer.json, its configuration and the files of `old`."""
        folder.mkdir(parents=True, exist_ok=True)
        if "tokenizer.json" in self.files:
            tokenizer.save(str(folder / "tokenizer.json"))
        for name, text in old.items():
            if name in self.files:
                (folder / name).write_text(text, encoding="utf-8")
        named = {f"{name}_token": token for name, token in special.items()}
        config = named | {"model_max_length": self.length, "tokenizer_class": self.kind} | dict(self.keys)
        for name, content in {"tokenizer_config.json": config, "special_tokens_map.json": named}.items():
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        numbers = tokenizer.get_vocab(with_added_tokens=True)
        ids = {f"{name}_token_id": numbers[token] for name, token in special.items()}
        return Written(tokenizer.get_vocab_size(with_added_tokens=True), ids)


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def _pieces_of_words(first: Sequence[str], lower: bool) -> dict[str, int]:
    signs, words = texts.characters(), list(texts.words())
    if lower:
        words = [_bare(word) for word in words]
        signs = sorted({sign for word in [*signs, *words] for sign in _bare(word)})
    return _numbered([*first, *signs, *(f"##{sign}" for sign in signs), *(w for w in words if len(w) > 1)])


def _bare(word: str) -> str:
    return str(normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=False).normalize_str(word))


def word_pieces(
    folder: Path,
    kind: str = "BertTokenizer",
    lower: bool = True,
    length: float = 512,
    files: Sequence[str] = ("tokenizer.json", "vocab.txt"),
    more: Sequence[str] = (),
    **keys: Any,
) -> Written:
    """BERT's: the pieces of lower-case words, or of words as they are; `more` are further tokens."""
    vocabulary = _pieces_of_words(["[PAD]", *more, "[UNK]", "[CLS]", "[SEP]", "[MASK]"], lower)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(_FACES.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    usual = {"do_lower_case": lower, "strip_accents": None, "tokenize_chinese_chars": True}
    written = Vocabulary(kind, length, usual | keys, files)
    return written.write(folder, tokenizer, _FACES, {"vocab.txt": "\n".join(vocabulary) + "\n"})


def mpnet_pieces(folder: Path, length: float = 512) -> Written:
    """MPNet's: BERT's pieces with RoBERTa's special tokens."""
    vocabulary = _pieces_of_words(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"], True)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "[UNK]", AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    usual = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    written = Vocabulary("MPNetTokenizer", length, usual)
    text = "\n".join(vocabulary) + "\n"
    return written.write(folder, tokenizer, _ROBERTA | {"unk": "[UNK]"}, {"vocab.txt": text})


def _byte_pairs(first: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Merges that put each frequent word together from its beginning, with the space before it."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    mapped = [level.pre_tokenize_str(f"{space}{word}")[0][0] for word in texts.words()[:300] for space in (" ", "")]
    return _chains(first, sorted(pre_tokenizers.ByteLevel.alphabet()), mapped)


def _chains(
    first: Sequence[str], signs: Sequence[str], words: Sequence[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    known = set(signs)
    merges = {
        (word[:place], word[place]): word[: place + 1]
        for word in words
        if set(word) <= known
        for place in range(1, len(word))
    }
    return _numbered([*first, *signs, *merges.values()]), list(merges)


def byte_pairs(
    folder: Path,
    kind: str = "RobertaTokenizer",
    length: float = 512,
    special: Mapping[str, str] = _ROBERTA,
    first: Sequence[str] = ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    around: tuple[str, str] = ("<s>", "</s>"),
    files: Sequence[str] = ("tokenizer.json", "vocab.json", "merges.txt"),
    prefix: bool = False,
    composed: bool = False,
    **keys: Any,
) -> Written:
    """GPT-2's byte-level pairs, with what is put around a text: RoBERTa, ModernBERT, Qwen.

    Args:
        folder: where to.
        kind: `tokenizer_class`.
        length: `model_max_length`.
        special: special tokens by their names.
        first: the tokens with the lowest ids.
        around: what is put before and behind a text; either may be empty.
        files: the files that are published.
        prefix: add a space before each text.
        composed: compose characters (NFC).
        keys: more keys of tokenizer_config.json.
    """
    vocabulary, merges = _byte_pairs(first)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    lstrip = special.get("mask") in ("<mask>", "[MASK]")
    tokenizer.add_special_tokens([AddedToken(one, lstrip=lstrip and one == special.get("mask")) for one in first])
    before, behind = around
    ids = [(one, vocabulary[one]) for one in dict.fromkeys(around) if one]
    if around == ("<s>", "</s>"):
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=True, add_prefix_space=prefix
        )
        keys = {"add_prefix_space": prefix, "errors": "replace", "trim_offsets": True} | keys
    elif ids:
        template = processors.TemplateProcessing(
            single=f"{before} $A {behind}".strip(),
            pair=f"{before} $A {behind} $B {behind}".strip() if before else f"$A $B {behind}",
            special_tokens=ids,
        )
        level = processors.ByteLevel(trim_offsets=False)
        tokenizer.post_processor = template if before else processors.Sequence([level, template])
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    old = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
    }
    return Vocabulary(kind, length, keys, files).write(folder, tokenizer, special, old)


def _unigrams(first: Sequence[str]) -> list[tuple[str, float]]:
    pieces = [*(f"{_SPACE}{word}" for word in texts.words()[:400]), _SPACE, *texts.characters()]
    pieces = [piece for piece in dict.fromkeys(pieces) if piece not in first]
    return [*((one, 0.0) for one in first), *((one, -3 - math.log(n + 2)) for n, one in enumerate(pieces))]


def _sentence_pieces(first: Sequence[str], unknown: str, lower: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(_unigrams(first), first.index(unknown)))
    steps = [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence([*steps, *([normalizers.Lowercase()] if lower else [])])
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def unigrams(folder: Path, kind: str = "XLMRobertaTokenizer", length: float = 512, **keys: Any) -> Written:
    """XLM-RoBERTa's pieces, of SentencePiece's kind; NFKC in place of its table of characters."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = _sentence_pieces(first, "<unk>")
    tokenizer.add_special_tokens([*first, AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return Vocabulary(kind, length, keys).write(folder, tokenizer, _ROBERTA, {})


def bracketed_unigrams(folder: Path, kind: str, lower: bool = False, length: float = 512, **keys: Any) -> Written:
    """Unigrams between BERT's special tokens: DeBERTa-v3 and ALBERT."""
    first = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"] if kind.startswith("Deberta") else ["<pad>", "<unk>", "[CLS]", "[SEP]"]
    special = {"cls": "[CLS]", "sep": "[SEP]", "pad": first[0], "mask": "[MASK]"}
    special["unk"] = "[UNK]" if "[UNK]" in first else "<unk>"
    special |= {"bos": "[CLS]", "eos": "[SEP]"}
    tokenizer = _sentence_pieces(first, special["unk"], lower)
    tokenizer.add_special_tokens([*first, AddedToken("[MASK]", lstrip=not kind.startswith("Deberta"), special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(one, first.index(one)) for one in ("[CLS]", "[SEP]")],
    )
    return Vocabulary(kind, length, keys).write(folder, tokenizer, special, {})


def t5_unigrams(folder: Path, length: float = 512, extra: int = 100) -> Written:
    """T5's pieces: an end behind each text, and tokens for what is left out."""
    first = ["<pad>", "</s>", "<unk>"]
    tokenizer = _sentence_pieces(first, "<unk>")
    more = [f"<extra_id_{number}>" for number in reversed(range(extra))]
    tokenizer.add_special_tokens([*first, *more])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    keys = {"extra_ids": extra, "additional_special_tokens": more[::-1]}
    special = {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
    return Vocabulary("T5Tokenizer", length, keys).write(folder, tokenizer, special, {})


def spaced_pairs(
    folder: Path,
    kind: str = "GemmaTokenizer",
    length: float = 2048,
    first: Sequence[str] = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    around: tuple[str, str] = ("<bos>", "<eos>"),
    side: str = "right",
    **keys: Any,
) -> Written:
    """Pairs over SentencePiece's signs with bytes to fall back on: Gemma, Llama, Mistral."""
    signs = [*(f"<0x{code:02X}>" for code in range(256)), _SPACE, *texts.characters()]
    words = [f"{space}{word}" for word in texts.words()[:300] for space in (_SPACE, "")]
    vocabulary, merges = _chains(first, signs, words)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(first))
    before, behind = around
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {behind}".strip(),
        pair=" ".join(
            part for part in (before, "$A", behind, before and f"{before}:1", "$B:1", behind and f"{behind}:1") if part
        ),
        special_tokens=[(one, vocabulary[one]) for one in around if one],
    )
    begin, end = ("<bos>", "<eos>") if "<bos>" in first else ("<s>", "</s>")
    special = {"bos": begin, "eos": end, "pad": "<pad>" if "<pad>" in first else end, "unk": "<unk>"}
    usual = {"add_bos_token": True, "add_eos_token": bool(behind), "padding_side": side}
    return Vocabulary(kind, length, usual | keys).write(folder, tokenizer, special, {})


def clip_pairs(folder: Path, length: int = 77) -> Written:
    """CLIP's: pairs of lower-case words, with a mark at each word's end; the end of the text has the highest id."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(level.pre_tokenize_str(word.lower())[0][0] for word in texts.words()[:300])
    merges: dict[tuple[str, str], str] = {}
    for word in words:
        signs = [*word[:-1], f"{word[-1]}</w>"]
        for place in range(1, len(signs)):
            merges.setdefault(("".join(signs[:place]), signs[place]), "".join(signs[: place + 1]))
    first, last = "<|startoftext|>", "<|endoftext|>"
    vocabulary = _numbered([*alphabet, *(f"{one}</w>" for one in alphabet), *merges.values(), first, last])
    tokenizer = Tokenizer(
        models.BPE(vocabulary, list(merges), unk_token=last, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    space = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), space, normalizers.Lowercase()])
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([first, last])
    tokenizer.post_processor = processors.RobertaProcessing(
        (last, vocabulary[last]), (first, vocabulary[first]), trim_offsets=False, add_prefix_space=False
    )
    special = {"bos": first, "eos": last, "pad": last, "unk": last}
    old = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
    }
    keys = {"errors": "replace", "do_lower_case": True, "add_prefix_space": False}
    return Vocabulary("CLIPTokenizer", length, keys).write(folder, tokenizer, special, old)
