"""Prompts by name, shorter vectors and similarities, as sentence-transformers has them for the same folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from exporter import Report
from runtime import Session, load
from runtime.commands.main import main
from runtime.errors import InputError, InputSizeError, InputTaskError, InputTextError, InputTypeError
from runtime.format.manifest import EmbeddingInfo
from runtime.text import Text
from runtime.text.embedding import SIMILARITIES, similarity
from tests.conftest import byte_level, tiny_model

TEXTS = ["Permission is hereby granted", "x", "The SOFTWARE is provided AS IS, Москва — naïve? 東京 🙂", "word " * 60]
ASK = "Instruct: Given a question, find passages that answer it\n\tQuery: "
SETTINGS = {
    "prompts": {"query": ASK, "topic": "topic: ", "document": None},
    "default_prompt_name": "topic",
    "similarity_fn_name": "euclidean",
}
LIBRARY = "sentence_transformers.models."
Capture = pytest.CaptureFixture[str]


@dataclasses.dataclass
class Both:
    """One folder twice: as the library reads it, and as an artifact."""

    folder: Path
    path: str
    library: SentenceTransformer
    session: Session

    @property
    def text(self) -> Text:
        return self.session.text


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, exported: Callable[..., Report]) -> Callable[..., Both]:
    """A folder whose modules are a transformer, a pooling, and those that are named."""
    made: dict[tuple[str, ...], Both] = {}

    def make(*behind: str) -> Both:
        if behind not in made:
            folder = tmp_path_factory.mktemp("embedding")
            sizes = {"vocab_size": 400, "max_position_embeddings": 258, "type_vocab_size": 1, "pad_token_id": 1}
            tiny_model("roberta", "feature-extraction", initializer_range=0.3, **sizes).save_pretrained(folder)
            byte_level(folder)
            kinds = ("Transformer", "Pooling", *behind)
            listed = [
                {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": LIBRARY + kind}
                for i, kind in enumerate(kinds)
            ]
            for name, content in {
                "modules.json": listed,
                "1_Pooling/config.json": {"word_embedding_dimension": 64, "pooling_mode": "mean"},
                "config_sentence_transformers.json": SETTINGS,
            }.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(json.dumps(content))
            output = exported(folder, backend="plain", verify="off").output
            made[behind] = Both(folder, str(output), SentenceTransformer(str(folder), device="cpu"), load(output))
        return made[behind]

    return make


def close(found: list[torch.Tensor], expected: Any) -> None:
    torch.testing.assert_close(torch.stack(found), torch.as_tensor(expected), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [None, "query", "topic", "document"])
def test_prompts_by_name(both: Callable[..., Both], name: str | None) -> None:
    one = both("Normalize")
    close(one.text.embed(TEXTS, prompt_name=name), one.library.encode(TEXTS, prompt_name=name))
    assert (name in (None, "topic")) == torch.equal(
        one.text.embed(["x"], prompt_name=name)[0], one.text.embed(["x"])[0]
    )


def test_a_prompt_of_one_s_own(both: Callable[..., Both]) -> None:
    one = both("Normalize")
    for prompt in ("", "Given:\n", ASK):
        close(one.text.embed(TEXTS, prompt=prompt), one.library.encode(TEXTS, prompt=prompt))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt_name": "passage"},
            "prompt_name is 'passage'; expected one of the model's prompts: query, document, topic",
        ),
        ({"prompt_name": 5}, "prompt_name is 5"),
        ({"prompt_name": "\n\u202e"}, r"prompt_name is '\\n\\u202e'"),
        ({"prompt": 5}, "prompt is 5; expected a string"),
        ({"prompt": "a", "prompt_name": "query"}, "prompt and prompt_name are both given"),
        ({"dimensions": 65}, "dimensions is 65; expected a whole number from 1 to 64, the size"),
        ({"dimensions": 0}, "dimensions is 0"),
        ({"dimensions": True}, "dimensions is True"),
        ({"dimensions": "8"}, "dimensions is '8'"),
        ({"dimensions": 8.0}, r"dimensions is 8\.0"),
    ],
)
def test_options_that_do_not_fit(both: Callable[..., Both], options: dict[str, Any], message: str) -> None:
    for errors in ("raise", "return"):
        with pytest.raises(InputTextError, match=message) as raised:
            both("Normalize").text.embed(TEXTS, errors=errors, **options)
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("behind", [(), ("Normalize",), ("Normalize", "Dropout")], ids=" ".join)
def test_shorter_vectors(both: Callable[..., Both], behind: tuple[str, ...]) -> None:
    """The library cuts; vectors that the folder normalises have length 1 afterwards too."""
    one = both(*behind)
    normalized = "Normalize" in behind
    for size in (1, 7, 64):
        library = SentenceTransformer(str(one.folder), device="cpu", truncate_dim=size)
        expected = library.encode(TEXTS, normalize_embeddings=normalized)
        found = one.text.embed(TEXTS, dimensions=size)
        close(found, expected)
        # Alone as in a batch, with a prompt as without.
        close(one.text.embed(TEXTS[:1], dimensions=size), expected[:1])
        expected = library.encode(TEXTS, prompt_name="query", normalize_embeddings=normalized)
        close(one.text.embed(TEXTS, dimensions=size, prompt_name="query"), expected)
        # The rest of the vector is not kept in memory.
        assert found[0].untyped_storage().nbytes() == 4 * size


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities(both: Callable[..., Both], name: Any) -> None:
    library = SentenceTransformer(str(both().folder), device="cpu", similarity_fn_name=name)
    a, b = torch.randn(5, 64), torch.randn(3, 64)
    info = EmbeddingInfo({}, False, name)
    for first, second in ((a, b), (list(a), list(b)), (a[0], b), (a.tolist(), b[1].tolist()), (a.numpy(), b.half())):
        torch.testing.assert_close(similarity(info, first, second), library.similarity(first, second))


def test_the_similarity_is_the_folder_s(both: Callable[..., Both]) -> None:
    one = both("Normalize")
    queries, documents = one.text.embed(TEXTS[:2], prompt_name="query"), one.text.embed(TEXTS)
    found = one.text.similarity(queries, documents)
    assert one.library.similarity_fn_name == "euclidean" and found.shape == (2, 4)
    expected = one.library.similarity(one.library.encode(TEXTS[:2], prompt_name="query"), one.library.encode(TEXTS))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (torch.zeros(2, 64), torch.zeros(2, 63), InputSizeError, "a has vectors of 64 numbers, b of 63"),
        ([], torch.zeros(2, 64), InputTypeError, r"a is \[\]; expected a tensor"),
        (torch.zeros(2, 64), ["a text"], InputTypeError, r"b is \['a text'\]"),
        ([torch.zeros(3), torch.zeros(4)], torch.zeros(2, 64), InputTypeError, "a is "),
        (torch.zeros(1, 2, 3), torch.zeros(2, 64), InputTypeError, "a is "),
        (None, torch.zeros(2, 64), InputTypeError, "a is None"),
        (np.array(["x"]), torch.zeros(2, 64), InputTypeError, "a is "),
    ],
)
def test_what_cannot_be_compared(
    both: Callable[..., Both], a: Any, b: Any, error: type[InputError], message: str
) -> None:
    with pytest.raises(error, match=message):
        both("Normalize").text.similarity(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": None}, "which the exporter of this file did not write.*export the model again"),
        (
            {"task": "feature-extraction", "embedding": None},
            "on an artifact for feature-extraction; expected an artifact for sentence-emb",
        ),
    ],
)
def test_files_that_do_not_say_it(both: Callable[..., Both], changes: dict[str, Any], message: str) -> None:
    one = both("Normalize")
    text = Text(one.session, dataclasses.replace(one.session.manifest, **changes), one.text._encoder)
    assert text.embed(["x"], prompt="")[0].shape == (64,)
    for call in (
        lambda: text.embed(["x"], prompt_name="query"),
        lambda: text.embed(["x"], dimensions=7),
        lambda: text.similarity(torch.zeros(1, 64), torch.zeros(1, 64)),
    ):
        with pytest.raises(InputTaskError, match=message):
            call()


def test_the_command(both: Callable[..., Both], capsys: Capture) -> None:
    one = both("Normalize")
    options = ["predict", one.path, "--text", TEXTS[0], "--text", TEXTS[2]]
    assert main([*options, "--prompt-name", "query", "--dimensions", "7"]) == 0
    rows = [json.loads(line)["sentence_embedding"] for line in capsys.readouterr().out.splitlines()]
    expected = one.text.embed([TEXTS[0], TEXTS[2]], prompt_name="query", dimensions=7)
    torch.testing.assert_close(torch.tensor(rows), torch.stack(expected))
    for wrong, message in (
        (
            ["--prompt-name", "passage"],
            "prompt_name is 'passage'; expected one of the model's prompts: query, document",
        ),
        (["--dimensions", "65"], "dimensions is 65; expected a whole number from 1 to 64"),
    ):
        assert main([*options, *wrong]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err and len(captured.err.splitlines()) == 1


def test_inspect_shows_prompts_as_escapes(both: Callable[..., Both], capsys: Capture) -> None:
    assert main(["inspect", both("Normalize").path]) == 0
    lines = capsys.readouterr().out.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("prompts ")]
    assert [line[10:] for line in lines[start : start + 3]] == [
        f"query: {ASK!r}"[:64] + "...",
        "topic: 'topic: '",
        "by default: 'topic: '",
    ]
    assert lines[start + 3] == "compared  by euclidean, vectors of length 1"
