"""Stored tokenizers are not trusted: hostile ones are named, bounded and fail by row; real kinds all load."""

from __future__ import annotations

import base64
import copy
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from runtime import Session, load
from runtime.errors import InputTextError, ManifestDamagedError
from runtime.serving.pool import Pool
from runtime.text.tokenizer import MAX_BYTES, MAX_CHARACTERS, InvalidText, StoredTokenizer
from tests.conftest import ROOT, run_python
from tests.test_artifact import rewrite

Json = dict[str, Any]
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = ["How do I reset my password?", "", "Ünïcödé ﷺ 中文 123", "it's 12345  spaces\n\nnew"]
ADDED = {"id": 9, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}


def words(**parts: Any) -> Json:
    """A small tokenizer of words and letters, with other parts."""
    vocabulary = {token: number for number, token in enumerate(["[UNK]", "ok", "fine", *"abc"])}
    plain: Json = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    return plain | parts


def stored(value: Json) -> StoredTokenizer:
    return StoredTokenizer(json.dumps(value).encode())


def replace(old: str, new: str, form: str = "String") -> Json:
    return {"type": "Replace", "pattern": {form: old}, "content": new}


def split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


BACKTRACKING = split("(a*)*" * 20 + "$")
CATASTROPHE = "a" * 40 + " b"


@pytest.fixture(scope="module")
def minilm_plain(minilm: Path, exported: Callable[..., Any]) -> Path:
    """The real model; its numbers are not the subject here."""
    return Path(exported(minilm, backend="plain", verify="off").output)


@pytest.fixture
def with_tokenizer(minilm_plain: Path, minilm: Path, tmp_path: Path) -> Callable[..., Session]:
    """A session on the real model whose tokenizer has other parts."""

    def make(**parts: Any) -> Session:
        tokenizer = json.loads((minilm / "tokenizer.json").read_text()) | parts
        content = json.dumps(tokenizer).encode()
        return load(rewrite(minilm_plain, tmp_path / "other.pt", {"tokenizer.json": content}), warmup=False)

    return make


def test_a_panic_is_an_error_of_its_row(with_tokenizer: Callable[..., Session]) -> None:
    session = with_tokenizer(pre_tokenizer=BACKTRACKING)
    good, bad, last = session.text.embed(["ok", CATASTROPHE, "fine"], errors="return")
    assert isinstance(good, torch.Tensor) and isinstance(last, torch.Tensor)
    assert isinstance(bad, InputTextError) and str(bad).startswith("the text cannot be tokenised: ")
    with Pool(session, workers=2) as pool:
        with pytest.raises(InputTextError, match="cannot be tokenised"):
            pool.submit(lambda given: given.text.encode([CATASTROPHE]))
        futures = [pool.submit(lambda given: given.text.encode(["ok"])) for _ in range(8)]
        assert all(future.result()["sentence_embedding"].shape == (1, 384) for future in futures)


def test_ctrl_c_is_no_error_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = stored(words())

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "_encode", lambda *_: interrupted(0))
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode(["ok"])


GROWING: dict[str, Json] = {
    "eight replacements": {"type": "Sequence", "normalizers": [replace(one, one * 10) for one in "a" * 8]},
    "nested": {"type": "Sequence", "normalizers": [
        {"type": "Sequence", "normalizers": [replace("a", "a" * 200)] * 3}, {"type": "Lowercase"}] * 2},
    "one": replace("a", "a" * 2000),
    "between all": replace("", "a" * 2000),
    "regex of nothing": replace("x*", "a" * 2000, "Regex"),
    "in turn": {"type": "Sequence", "normalizers": [replace("a", "b" * 300), replace("b", "a" * 300)]},
    "prepended": {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "a" * 2000}, replace("a", "a" * 2000), replace("a", "a" * 2000)]},
    "a table": {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(4) + b"a" * 10**6).decode()}] * 2},
}  # fmt: skip


@pytest.mark.parametrize("kind", GROWING)
def test_a_text_that_would_grow_is_refused_before_the_memory_is_taken(kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokenizer = stored(words(normalizer=GROWING[kind]))
    (problem,) = tokenizer.encode(["a" * 10_000])
    assert (
        isinstance(problem, InvalidText)
        and f"at most {MAX_BYTES}" in problem.expected
        and "bytes when it is tokenised" in problem.what
    )
    # In kilobytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


def test_texts_that_do_not_grow_are_taken_by_a_tokenizer_that_could_let_them() -> None:
    (one, problem, other) = stored(words(normalizer=GROWING["eight replacements"])).encode(["ok", "a" * 100, "fine"])
    assert isinstance(problem, InvalidText) and not isinstance(one, InvalidText) and not isinstance(other, InvalidText)
    assert (one.ids, other.ids) == ([1], [2])


def test_pieces_that_would_grow_when_they_are_parted() -> None:
    mark = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tokenizer = stored(words(pre_tokenizer={"type": "Sequence", "pretokenizers": [mark] * 30}))
    (problem,) = tokenizer.encode(["a b c"])
    assert isinstance(problem, InvalidText) and "may become" in problem.what


def test_a_long_text_is_refused_by_its_characters(with_tokenizer: Callable[..., Session]) -> None:
    session = with_tokenizer()
    long = "a" * (MAX_CHARACTERS + 1)
    good, bad = session.text.embed(["ok", long], errors="return", truncate=True)
    assert isinstance(good, torch.Tensor)
    assert str(bad) == f"the text has {len(long)} characters; expected at most {MAX_CHARACTERS}; divide it"


def test_many_texts_are_tokenised_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may become what one may become: not all of them at once."""
    monkeypatch.setattr("runtime.text.tokenizer.MAX_BYTES", 100)
    tokenizer = stored(words())
    sizes: list[int] = []
    encode = tokenizer._encode
    monkeypatch.setattr(tokenizer, "_encode", lambda items, *rest: sizes.append(len(items)) or encode(items, *rest))  # type: ignore[func-returns-value]
    found = tokenizer.encode(["ok" + " ok" * 9] * 10 + ["a " * 80] + ["fine"])
    assert [isinstance(one, InvalidText) for one in found] == [False] * 10 + [True, False]
    assert sizes == [3, 3, 3, 1, 1]


def changed(path: str, value: Any) -> Json:
    """`words()` with another value at a path such as `model.vocab`."""
    made = copy.deepcopy(words())
    *parents, last = path.split(".")
    place = made
    for parent in parents:
        place = place[parent]
    place[last] = value
    return made


TEMPLATE = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
SPECIAL = {"SpecialToken": {"id": "ok", "type_id": 0}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "it is not an object"),
        (words() | {"more": 1}, "unknown 'more'"),
        (words(normalizer={"type": "Python"}), "normalizer is of the kind 'Python'"),
        (words(normalizer=5), "normalizer is of the kind None"),
        # Without its own fields the package would take it for a replacement.
        (words(normalizer=replace("a", "b") | {"type": "BertNormalizer"}), "unknown field"),
        (words(normalizer={"type": "Replace", "content": "a"}), "no pattern"),
        (words(normalizer=replace("a", "a" * 10_000)), "more than 2048 bytes"),
        (words(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}), "damaged"),
        (words(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 1000}), "at most 64"),
        (words(pre_tokenizer=split("a" * 10_000)), "no pattern"),
        (words(pre_tokenizer=split("(")), "damaged"),
        (words(post_processor=TEMPLATE | {"single": [SPECIAL] * 5000}), "at most 64 pieces"),
        (words(post_processor=TEMPLATE | {"single": [TEXT] * 3}), "repeats the text"),
        (
            words(post_processor=TEMPLATE | {"special_tokens": {"ok": {"id": "ok", "ids": [1] * 99, "tokens": []}}}),
            "at most 16 ids",
        ),
        (words(decoder={"type": "Sequence", "decoders": [replace("a", "a" * 9)] * 5}), "its decoder"),
        (words(added_tokens=[ADDED | {"content": "x" * 10_000}]), "an added token has more than"),
        (
            words(added_tokens=[ADDED | {"content": "a" * 2000}], normalizer=GROWING["eight replacements"]),
            "grow beyond measure",
        ),
        (words(added_tokens=[5]), "not a string"),
        (changed("model.unk_token", "x" * 1000), "unk_token has more than 256 bytes"),
        (changed("model.vocab", {"x" * 5000: 0}), "not a token of at most 2048"),
        (changed("model.vocab", None), "no vocabulary"),
        (changed("model.type", "Python"), "model is of the kind"),
        (words(model=None), "no model"),
        (words(model={"type": "WordPiece", "vocab": {}, "max_input_chars_per_word": 10**9}), "more than 256"),
        (words(model={"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "x" * 99}), "more than 64 bytes"),
    ],
)
def test_what_no_real_tokenizer_holds(value: Any, message: str) -> None:
    with pytest.raises(ManifestDamagedError, match=message):
        StoredTokenizer(json.dumps(value).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", json.dumps(words()).encode("utf-16")])
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(ManifestDamagedError, match=r"damaged tokenizer\.json"):
        StoredTokenizer(content)


def test_of_a_name_that_stands_twice_what_was_checked_is_used() -> None:
    text = json.dumps(words()).removesuffix("}") + ', "normalizer": {"type": "Lowercase"}}'
    (found,) = StoredTokenizer(text.encode()).encode(["OK"])
    assert not isinstance(found, InvalidText) and found.ids == [1]


def trained(model: Any, trainer: Any, **parts: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator([(ROOT / "LICENSE").read_text()], trainer)
    return tokenizer


def bpe(**parts: Any) -> Tokenizer:
    options = {name: parts.pop(name) for name in ("byte_fallback", "end_of_word_suffix", "fuse_unk") if name in parts}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    return trained(models.BPE(unk_token="<unk>", **options), trainer, **parts)


LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
REAL: dict[str, Callable[[], Tokenizer]] = {
    "roberta": lambda: bpe(
        pre_tokenizer=pre_tokenizers.ByteLevel(),
        decoder=decoders.ByteLevel(),
        post_processor=processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
    ),
    "llama 3": lambda: bpe(
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4), "isolated"), LEVEL]),
        decoder=decoders.ByteLevel(),
        post_processor=processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single="<s>:0 $A:0", pair="<s>:0 $A:0 <s>:1 $B:1", special_tokens=[("<s>", 1)]
                ),
            ]
        ),
    ),
    "llama 2": lambda: bpe(
        byte_fallback=True,
        fuse_unk=True,
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    ),
    "gemma": lambda: bpe(
        byte_fallback=True,
        normalizer=normalizers.Replace(" ", "▁"),
        pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
    ),
    "falcon": lambda: bpe(
        pre_tokenizer=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation(),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
                pre_tokenizers.Digits(individual_digits=True),
            ]
        )
    ),
    "clip": lambda: bpe(
        end_of_word_suffix="</w>",
        normalizer=normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        ),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}"), "removed", True), LEVEL]),
        decoder=decoders.BPEDecoder(suffix="</w>"),
    ),
    "unigram": lambda: trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False),
        normalizer=normalizers.Sequence(
            [
                *(normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip(left=False)),
                normalizers.Replace(Regex(" {2,}"), "▁"),
            ]
        ),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        decoder=decoders.Metaspace(),
    ),
    "wordpiece": lambda: trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
        normalizer=normalizers.Sequence(
            [
                *(normalizers.NFD(), normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents()),
                normalizers.BertNormalizer(),
            ]
        ),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
        post_processor=processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    ),
}


@pytest.mark.parametrize("kind", REAL)
def test_real_kinds_load_and_give_the_package_s_own_tokens(kind: str) -> None:
    tokenizer = REAL[kind]()
    tokenizer.add_tokens([AddedToken("new word")])
    own = StoredTokenizer(tokenizer.to_str().encode())
    long = (" Some words here, and more." * 20_000)[:MAX_CHARACTERS]
    items: list[Any] = [*TEXTS, ("a pair", "of texts")]
    found = own.encode(items)
    assert [one if isinstance(one, InvalidText) else one.ids for one in found] == [
        one.ids for one in tokenizer.encode_batch(items)
    ]
    ids = tokenizer.encode(TEXTS[0]).ids
    assert own.decode(ids, special=True) == tokenizer.decode(ids, skip_special_tokens=False)
    (whole,) = own.encode([long[: MAX_CHARACTERS // 4]])
    assert not isinstance(whole, InvalidText)


def test_a_table_of_sentencepiece_loads() -> None:
    """One that replaces nothing: 512 empty nodes, and no strings."""
    content = (2048).to_bytes(4, "little") + bytes(2048)
    table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}
    (found,) = stored(words(normalizer=table)).encode(["ok"])
    assert not isinstance(found, InvalidText) and found.ids == [1]


def test_a_growing_text_under_a_limit_of_memory(minilm_plain: Path, minilm: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((minilm / "tokenizer.json").read_text()) | {"normalizer": GROWING["eight replacements"]}
    path = rewrite(minilm_plain, tmp_path / "grows.pt", {"tokenizer.json": json.dumps(tokenizer).encode()})
    code = """
import sys, resource, runtime
session = runtime.load(sys.argv[1], threads=1)
resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0]) * 4096 + 2 * 2**30,) * 2)
good, bad = session.text.embed(["ok", "a" * 40 + " b"], errors="return")
print(len(good), type(bad).__name__)
"""
    assert run_python(code, path).stdout.split() == ["384", "InputTextError"]
