"""Read texts from a file or standard input, one line at a time: plain text or JSON lines.

At most a line and a buffer are in memory. A line that cannot be used has an error of its own; InputFileError is raised
only if the file cannot be read or holds no line.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runtime.errors import InputFileError, InputTextError

# The maximum size of a line in bytes. No model reads more, and a file without line ends would fill the memory.
MAX_LINE = 4 * 2**20


@dataclass(frozen=True)
class Query:
    """A query and the documents to rank for it; these are not checked yet."""

    query: str
    documents: Any


# A text, two that belong together, a query with its documents, or the messages of a conversation.
Item = str | tuple[str, str] | Query | list[Any]
Name = str | int | float | None


@dataclass(frozen=True)
class Line:
    """One line: its number from 1, its text, pair or error, its size in bytes, and the `id` of a JSON line."""

    number: int
    item: Item | InputTextError
    size: int
    id: Name = None


Parser = Callable[[str], tuple[Item, Name]]


def read_lines(path: str, parse: Parser | None = None) -> Iterator[Line]:
    """The lines of a file in UTF-8.

    Args:
        path: a file, or `-` for standard input.
        parse: `json_text` or another function of this module for JSON lines, of which blank ones are skipped; None: a
            line is a text.

    Raises:
        InputFileError: the file cannot be read, or holds no line.
    """
    empty = True
    try:
        with _open_input(path) as file:
            for number, (line, size) in enumerate(_raw_lines(file), 1):
                text = _decode(line, size, first=number == 1)
                if parse is not None and isinstance(text, str) and not text.strip():
                    continue
                empty = False
                yield _line(number, text, size, parse)
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror or error}", "a file of texts") from error
    if empty:
        raise InputFileError(f"{path} is empty", "one text per line" if parse is None else "one JSON object per line")


def size_of(path: str) -> int | None:
    """The size of a file in bytes; None if it is not a regular file."""
    return Path(path).stat().st_size if path != "-" and Path(path).is_file() else None


def json_text(line: str) -> tuple[Item, Name]:
    """Parse `{"text": "…"}`, which may have a `text_pair`.

    Raises:
        InputTextError: the line is not such an object.
    """
    value = _object(line, "text")
    if value.get("text_pair") is None:
        return value["text"], value.get("id")
    return (value["text"], _string(value, "text_pair")), value.get("id")


def json_question(line: str) -> tuple[Item, Name]:
    """Parse `{"question": "…", "context": "…"}`.

    Raises:
        InputTextError: the line is not such an object.
    """
    value = _object(line, "question", "context")
    return (value["question"], value["context"]), value.get("id")


def json_prompt(line: str) -> tuple[Item, Name]:
    """Parse `{"prompt": "…"}` or `{"messages": […]}`; the messages are not checked yet.

    Raises:
        InputTextError: the line is not such an object.
    """
    wanted = '{"prompt": "…"} or {"messages": […]}'
    value = _object(line, wanted=wanted)
    if ("prompt" in value) == ("messages" in value):
        raise InputTextError('the line has no "prompt", no "messages", or both', wanted)
    if "prompt" in value:
        return _string(value, "prompt"), value.get("id")
    if not isinstance(value["messages"], list):
        raise InputTextError(f'"messages" is {value["messages"]!r}'[:100], "a list")
    return value["messages"], value.get("id")


def json_query(line: str) -> tuple[Item, Name]:
    """Parse `{"query": "…", "documents": ["…"]}`; or what `json_text` parses, for a reranker that is to classify.

    Raises:
        InputTextError: the line is not such an object.
    """
    wanted = '{"query": "…", "documents": ["…"]}'
    value = _object(line, wanted=wanted)
    if "text" in value and "query" not in value:
        return json_text(line)
    for field in ("query", "documents"):
        if field not in value:
            raise InputTextError(f'the line has no "{field}"', wanted)
    return Query(_string(value, "query"), value["documents"]), value.get("id")


@contextlib.contextmanager
def _open_input(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        if sys.stdin is None:
            raise InputFileError("cannot read -: standard input is closed", "texts on standard input")
        # Not closed, since it belongs to the process.
        yield sys.stdin.buffer
    else:
        with open(path, "rb") as file:
            yield file


def _raw_lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, cut at the limit, and its full size."""
    while line := file.readline(MAX_LINE + 1):
        size, rest = len(line), line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE + 1)
            size += len(rest)
        yield line, size


def _decode(line: bytes, size: int, first: bool) -> str | InputTextError:
    if size > MAX_LINE:
        return InputTextError(f"the line has {size} bytes", f"at most {MAX_LINE}", "divide it")
    try:
        # Editors on Windows put a byte order mark before the first line.
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return InputTextError(f"the line is not UTF-8: byte {byte:#04x} at position {error.start + 1}", "text in UTF-8")
    return text.removesuffix("\n").removesuffix("\r")


def _line(number: int, text: str | InputTextError, size: int, parse: Parser | None) -> Line:
    if parse is None or isinstance(text, InputTextError):
        return Line(number, text, size)
    try:
        item, name = parse(text)
    except InputTextError as error:
        return Line(number, error, size)
    return Line(number, item, size, name)


def _object(line: str, *fields: str, wanted: str = "") -> dict[str, Any]:
    wanted = wanted or "{" + ", ".join(f'"{field}": "…"' for field in fields) + "}"
    try:
        value = json.loads(line)
    # RecursionError: thousands of nested brackets.
    except (ValueError, RecursionError) as error:
        raise InputTextError(f"the line is not JSON: {error}", wanted) from error
    if not isinstance(value, dict):
        raise InputTextError(f"the line is a JSON {type(value).__name__}, not an object", wanted)
    for field in fields:
        if field not in value:
            raise InputTextError(f'the line has no "{field}"', wanted)
        _string(value, field)
    return value


def _string(value: dict[str, Any], field: str) -> str:
    if not isinstance(value[field], str):
        raise InputTextError(f'"{field}" is {value[field]!r}'[:100], "a string")
    return str(value[field])
