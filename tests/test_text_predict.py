"""`run-model predict` on files of texts: results in order, errors only for bad lines, no more read than needed."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.commands import predict, text_file
from runtime.commands.main import main
from runtime.commands.text_file import json_question, json_text, read_lines
from runtime.errors import InputFileError, InputTextError
from tests.conftest import BIN, Side, run

RUN = BIN / "run-model"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def classifier(side: Callable[..., Side]) -> Side:
    return side("text-classification", num_labels=3)


@pytest.fixture
def artifact_of(exported: Callable[..., Any]) -> Callable[[Side], str]:
    """The file behind a session."""
    return lambda both: str(exported(both.folder, backend="plain", task=both.task, verify="off").output)


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_of_texts(classifier: Side, artifact_of: Callable[[Side], str], tmp_path: Path, capsys: Capture) -> None:
    texts = [f"{'word ' * (number * 13 % 40)}number {number}" for number in range(40)]
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode())
    assert main(["predict", artifact_of(classifier), "--texts", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for row, expected in zip(rows_of(captured.out), classifier.text.classify(texts), strict=True):
        assert row["label"] == expected.label
        assert row["scores"] == pytest.approx(expected.scores, rel=1e-4)


def test_bad_lines_fail_alone_by_number(
    classifier: Side, artifact_of: Callable[[Side], str], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(
        b"good\n\nbad \xff byte\n" + b"word " * 600 + b"\ngood\n" + b"x" * (text_file.MAX_LINE + 5) + b"\nlast"
    )
    assert main(["predict", artifact_of(classifier), "--texts", str(path)]) == 1
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    assert ["error" in row for row in rows] == [False, True, True, True, False, True, False]
    assert [row["line"] for row in rows if "error" in row] == [2, 3, 4, 6]
    for row, message in zip(
        [row for row in rows if "error" in row],
        ["is empty", "not UTF-8: byte 0xff at position 5", "602 tokens", f"{text_file.MAX_LINE + 6} bytes"],
        strict=True,
    ):
        assert message in row["error"]
    (line,) = captured.err.splitlines()
    assert line == "run-model: 4 of 7 lines failed; line 2: the text is empty; expected at least one word"
    assert main(["predict", artifact_of(classifier), "--texts", str(path), "--truncate"]) == 1
    assert "3 of 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "the line is not JSON"),
        ("[1]", "is a JSON list, not an object"),
        ("[" * 100_000, "the line is not JSON"),
        ('{"question": "q"}', 'the line has no "text"; expected {"text": "…"}'),
        ('{"text": 5}', '"text" is 5'),
        ('{"text": "a", "text_pair": 5}', '"text_pair" is 5'),
        ('{"text": ""}', "is empty"),
        (r'{"text": "\ud800"}', "bytes that are not UTF-8"),
    ],
)
def test_json_lines(
    classifier: Side, artifact_of: Callable[[Side], str], tmp_path: Path, capsys: Capture, line: str, message: str
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(f'{{"text": "one", "id": "a"}}\n\n{line}\n{{"text": "two", "text_pair": "three", "id": 7}}\n')
    assert main(["predict", artifact_of(classifier), "--jsonl", str(path)]) == 1
    captured = capsys.readouterr()
    first, bad, last = rows_of(captured.out)
    assert (first["id"], last["id"]) == ("a", 7)
    assert bad["line"] == 3 and message in bad["error"]
    assert "1 of 3 lines failed; line 3" in captured.err
    (expected,) = classifier.text.classify([("two", "three")])
    assert last["scores"] == pytest.approx(expected.scores, rel=1e-4)


def test_answers_of_the_other_tasks(
    side: Callable[..., Side], artifact_of: Callable[[Side], str], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "lines.jsonl"

    def predicted(both: Side, line: dict[str, str], *options: str) -> dict[str, Any]:
        path.write_text(json.dumps(line))
        assert main(["predict", artifact_of(both), "--jsonl", str(path), *options]) == 0
        (row,) = rows_of(capsys.readouterr().out)
        return row

    both = side("question-answering")
    pair = ("Where are tickets sold?", "Tickets are sold in the harbour's office. " * 60)
    row = predicted(both, {"question": pair[0], "context": pair[1]}, "--stride", "32")
    expected = both.text.answer(*pair, stride=32)
    assert row == {"text": expected.text, "score": pytest.approx(expected.score, rel=1e-4)} | {
        "start": expected.start,
        "end": expected.end,
    }
    both = side("fill-mask")
    row = predicted(both, {"text": "a [MASK]"}, "--top-k", "2")
    ((mask,),) = [both.text.fill(["a [MASK]"], top_k=2)[0]]
    assert [(one["token"], one["id"], one["text"]) for one in row["masks"][0]] == [
        (c.token, c.id, c.text) for c in mask
    ]
    names = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
    both = side("token-classification", "bert", id2label=names, label2id={name: i for i, name in names.items()})
    text = "Ada wrote to Charles from London."
    row = predicted(both, {"text": text}, "--aggregation", "first")
    (tags,) = both.text.tag([text], aggregation="first")
    assert [(one["label"], one["word"], one["start"], one["end"]) for one in row["tags"]] == [
        (tag.label, tag.word, tag.start, tag.end) for tag in tags
    ]
    assert len(tags) > 1


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("question-answering", ["--texts", "{}"], "plain text for an artifact for question-answering.*give --jsonl"),
        ("question-answering", ["--text", "a"], "plain text for an artifact for question-answering.*give --jsonl"),
        ("question-answering", ["--jsonl", "{}", "--truncate"], "--truncate with an artifact for question-answering"),
        ("fill-mask", ["--texts", "{}", "--stride", "3"], "--stride with an artifact for fill-mask"),
        ("fill-mask", ["--texts", "{}", "--aggregation", "max"], "--aggregation with an artifact for fill-mask"),
        ("fill-mask", ["--inputs", "x.json", "--top-k", "3"], "--top-k with --inputs"),
        ("fill-mask", ["--texts", "missing.txt"], "cannot read missing.txt: No such file or directory"),
        ("fill-mask", ["--texts", "/"], "cannot read /: Is a directory"),
        ("fill-mask", ["--texts", os.devnull], "is empty; expected one text per line"),
        ("fill-mask", ["--jsonl", os.devnull], "is empty; expected one JSON object per line"),
    ],
)
def test_refused_before_anything_is_loaded(
    side: Callable[..., Side],
    artifact_of: Callable[[Side], str],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    options: list[str],
    message: str,
) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a text\n")
    file = artifact_of(side(task))
    monkeypatch.setattr("runtime.session.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert main(["predict", file, *(str(path) if one == "{}" else one for one in options)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    with pytest.raises(InputTextError, match=message):
        raise InputTextError(line)


def test_several_texts_of_which_one_is_bad(
    classifier: Side, artifact_of: Callable[[Side], str], capsys: Capture
) -> None:
    assert main(["predict", artifact_of(classifier), "--text", "one", "--text", " ", "--text", "three"]) == 1
    captured = capsys.readouterr()
    rows = rows_of(captured.out)
    assert [row["text"] for row in rows] == ["one", " ", "three"]
    assert list(rows[1]) == ["text", "error"] and "label" in rows[2]
    assert captured.err.startswith("run-model: 1 of 3 texts failed; text 2: the text is empty")


def test_standard_input(classifier: Side, artifact_of: Callable[[Side], str]) -> None:
    # clean start: the project's own command
    done = subprocess.run(
        [RUN, "predict", artifact_of(classifier), "--texts", "-"],
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert len(rows_of(done.stdout)) == 2 and done.stderr == ""


def test_progress_is_shown_on_a_terminal_alone(
    classifier: Side, artifact_of: Callable[[Side], str], tmp_path: Path
) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a text\n" * 300)
    main_side, terminal = pty.openpty()
    # A terminal without a width would have no bar.
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with tempfile.TemporaryFile() as output:
        # clean start: the project's own command
        subprocess.run(
            [RUN, "predict", artifact_of(classifier), "--texts", path],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=terminal,
            check=True,
            timeout=120,
        )
        output.seek(0)
        assert len(output.read().splitlines()) == 300
    os.close(terminal)
    shown = os.read(main_side, 65536).decode()
    os.close(main_side)
    assert "100%" in shown and "B/s" in shown
    assert run([RUN, "predict", artifact_of(classifier), "--texts", path]).stderr == ""


def test_no_more_than_a_window_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first results of an endless file are printed."""
    given = itertools.count()

    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1) -> bytes:
            return f"line {next(given)}\n".encode()

    class Standard:
        buffer = Endless()

    monkeypatch.setattr(sys, "stdin", Standard)
    chunks = predict._chunks(read_lines("-"))
    first, second = next(chunks), next(chunks)
    assert [line.item for line in first][:2] == ["line 0", "line 1"]
    assert len(first) == predict.CHUNK_LINES and second[0].number == predict.CHUNK_LINES + 1
    assert next(given) <= 2 * predict.CHUNK_LINES


def test_large_lines_end_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(f"{'x' * (predict.CHUNK_BYTES // 2)}\n" * 5)
    assert [len(chunk) for chunk in predict._chunks(read_lines(str(path)))] == [2, 2, 1]


def test_what_a_line_weighs_adds_up_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("ä\r\nb\n\n".encode() + b"x" * (2 * text_file.MAX_LINE + 10) + b"\nend")
    lines = list(read_lines(str(path)))
    assert sum(line.size for line in lines) == text_file.size_of(str(path)) == path.stat().st_size
    assert [line.item for line in lines if isinstance(line.item, str)] == ["ä", "b", "", "end"]
    assert text_file.size_of("-") is None


def test_a_file_that_fails_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> Iterator[bytes]:
        yield b"one\n"
        raise OSError(5, "Input/output error")

    lines = failing()

    class Standard:
        class buffer:  # noqa: N801
            readline = staticmethod(lambda _: next(lines))

    monkeypatch.setattr(sys, "stdin", Standard)
    read = read_lines("-")
    assert next(read).item == "one"
    with pytest.raises(InputFileError, match="cannot read -: Input/output error"):
        next(read)


def test_json_fields() -> None:
    assert json_text('{"text": "a"}') == ("a", None)
    assert json_text('{"text": "a", "text_pair": "b", "id": 3}') == (("a", "b"), 3)
    assert json_question('{"question": "q", "context": "c", "id": "x"}') == (("q", "c"), "x")
    with pytest.raises(InputTextError, match='no "context"; expected {"question": "…", "context": "…"}'):
        json_question('{"question": "q"}')
